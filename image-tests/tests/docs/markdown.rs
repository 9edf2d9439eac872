//! The part of Markdown that the pages use.

/// A fenced block of code.
#[derive(Debug, PartialEq)]
pub struct Block {
    /// The line of its fence, from 1.
    pub line: usize,
    /// What follows the opening fence, such as "json firstboot.json".
    pub info: String,
    pub text: String,
}

/// A page whose blocks of code are replaced by empty lines, and the blocks.
pub fn parse(page: &str) -> (String, Vec<Block>) {
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    let mut open: Option<Block> = None;
    for (number, line) in page.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                open = Some(Block {
                    line: number + 1,
                    info: info.trim().to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => prose += line,
        }
        prose.push('\n');
    }
    (prose, blocks)
}

/// The anchors that GitHub gives the headings of this prose.
pub fn anchors(prose: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for line in prose.lines() {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let anchor: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let earlier = anchors.iter().filter(|other| **other == anchor).count();
        anchors.push(match earlier {
            0 => anchor,
            n => format!("{anchor}-{n}"),
        });
    }
    anchors
}

/// The targets of this prose's links.
pub fn links(prose: &str) -> Vec<&str> {
    // Text between backticks is not a link.
    let text = prose.split('`').step_by(2);
    text.flat_map(|text| text.split("](").skip(1))
        .filter_map(|rest| rest.split([')', ' ', '\n']).next())
        .chain(prose.lines().filter_map(definition))
        .collect()
}

/// "[name]: where"
fn definition(line: &str) -> Option<&str> {
    let (name, target) = line.strip_prefix('[')?.split_once("]: ")?;
    (!name.contains(']')).then(|| target.trim())
}

#[test]
fn the_parts_of_a_page_are_told_apart() {
    let page = "# A page\n\n[one](b.md) and `[no](c.md)`, [`two`](d.md#e)\n\n  ```json x\n  [three](f)\n  ```\n\n## A page\n[g]: h.md\n";
    let (prose, blocks) = parse(page);
    assert_eq!(
        blocks,
        [Block {
            line: 5,
            info: "json x".into(),
            text: "  [three](f)\n".into()
        }]
    );
    assert_eq!(anchors(&prose), ["a-page", "a-page-1"]);
    assert_eq!(links(&prose), ["b.md", "d.md#e", "h.md"]);
    assert_eq!(
        anchors("## status --json and status.json\n## `FOO_BAR`: what?\n"),
        ["status---json-and-statusjson", "foo_bar-what"]
    );
}
