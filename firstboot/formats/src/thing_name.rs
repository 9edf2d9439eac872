//! The names of things, as AWS IoT and FAT accept them.

/// Maximum length of a thing name, characters (AWS IoT API reference, CreateThing, thingName).
const MAX_THING_NAME: usize = 128;

/// AWS IoT API reference, CreateThing, thingName: `[a-zA-Z0-9:_-]+`, 1 to 128 characters. The error
/// says what is wrong.
pub fn check_thing_name(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() {
        return Err(
            "thing_name is missing or empty; \"gateway-${serial}\" is a good choice".into(),
        );
    }
    if name.len() > MAX_THING_NAME {
        return Err(format!(
            "thing_name has {} characters; AWS IoT allows at most {MAX_THING_NAME}",
            name.len()
        ));
    }
    match name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || ":_-".contains(*c)))
    {
        None => Ok(()),
        Some(odd) => Err(format!(
            "thing_name {name:?} contains {odd:?}; AWS IoT allows letters, digits, ':', '_' and '-'"
        )),
    }
}

/// Under this name lie a request for a thing's next key, and what answers it. No thing has such a name: there is a dot
/// in it.
pub fn next_name(thing_name: &str) -> String {
    format!("{thing_name}.next")
}

/// Under this name lie a request for the key that a thing's networks have for themselves, and what answers it. No thing
/// has such a name either.
pub fn eap_name(thing_name: &str) -> String {
    format!("{thing_name}.eap")
}

/// The thing's name as a file name on FAT: of the characters that a thing name may have, only the colon is not allowed
/// there.
pub fn file_name(thing_name: &str) -> String {
    thing_name.replace(':', "_")
}

/// The same, as FAT compares names: ignoring case. Things for which this is the same cannot both have their files on a
/// card.
pub fn fat_name(thing_name: &str) -> String {
    file_name(thing_name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thing_names_are_those_of_aws() {
        for good in ["gateway-1", "a", "A:b_c-9"] {
            assert!(check_thing_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(MAX_THING_NAME + 1);
        for bad in ["", "a/b", "..", "a b", "a\u{7}", "ä", "${serial}", &long] {
            assert!(check_thing_name(bad).is_err(), "{bad}");
        }
    }
}
