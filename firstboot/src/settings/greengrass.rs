//! Refuses AWS addresses that cannot work: each by its form, and then all of them together.

use super::aws::{self, Endpoint, NoEndpoint, Purpose};
use super::check::is_host;
use super::{Edition, Greengrass};
use crate::error::{Error, Result};

/// Maximum length of a role alias, characters (AWS IoT API reference, CreateRoleAlias, roleAlias).
const MAX_ROLE_ALIAS: usize = 128;
/// Digits of an account ID (AWS Account Management reference guide, "AWS account identifiers").
const ACCOUNT_ID: usize = 12;

impl Greengrass {
    /// Refuses what cannot work. Returns a remark about what may work, but not for long or not everywhere.
    pub(super) fn check(&self) -> Result<Vec<String>> {
        let v1 = self.edition == Edition::V1;
        let region = "a region's name in lower case, such as \"eu-central-1\"";
        let host = "a host name alone, without \"https://\", port or path";
        type Form = fn(&str) -> bool;
        let values: [(&str, &str, bool, Form, &str); 5] = [
            ("aws_region", &self.aws_region, true, aws::is_region, region),
            (
                "iot_data_endpoint",
                &self.iot_data_endpoint,
                true,
                is_host,
                host,
            ),
            (
                "iot_credential_endpoint",
                &self.iot_credential_endpoint,
                !v1,
                is_host,
                host,
            ),
            (
                "iot_role_alias",
                &self.iot_role_alias,
                !v1,
                is_role_alias,
                "a role alias: up to 128 letters, digits and \"_=,@-\"; not its ARN",
            ),
            (
                "aws_account_id",
                &self.aws_account_id,
                v1,
                is_account_id,
                "an account ID: 12 digits, without hyphens",
            ),
        ];
        for (name, value, needed, has_form, form) in values {
            if value.is_empty() {
                if needed {
                    return Err(Error::settings(format!(
                        "greengrass.{name} is missing or empty: set it in firstboot.json on the boot partition"
                    )));
                }
            } else if !has_form(value) {
                return Err(Error::settings(format!(
                    "greengrass.{name}: {value:?} is not {form}"
                )));
            }
        }
        let mut remarks = Vec::new();
        for (name, host, purpose) in [
            ("iot_data_endpoint", &self.iot_data_endpoint, Purpose::Data),
            (
                "iot_credential_endpoint",
                &self.iot_credential_endpoint,
                Purpose::Credentials,
            ),
        ] {
            let remark = check_endpoint(host, purpose, &self.aws_region)
                .map_err(|why| Error::settings(format!("greengrass.{name}: {host:?} {why}")))?;
            remarks.extend(remark.map(|remark| format!("greengrass.{name}: {host:?} {remark}")));
        }
        Ok(remarks)
    }
}

/// Whether the endpoint is one for this purpose, in this region. Nothing is known about an operator's own domain.
fn check_endpoint(
    host: &str,
    wanted: Purpose,
    region: &str,
) -> std::result::Result<Option<String>, String> {
    let ask = |purpose: Purpose| {
        format!(
            "`aws iot describe-endpoint --region {region} --endpoint-type {}` prints the right one",
            purpose.endpoint_type()
        )
    };
    let host = host.to_ascii_lowercase();
    let endpoint = match Endpoint::parse(&host) {
        None => return Ok(None),
        Some(Err(NoEndpoint)) => {
            return Err(format!(
                "is in one of AWS's domains, but is not an AWS IoT endpoint. {}",
                ask(wanted)
            ));
        }
        Some(Ok(endpoint)) => endpoint,
    };
    if endpoint.purpose != wanted {
        return Err(format!(
            "is AWS IoT's {}, not its {}. {}",
            endpoint.purpose.describe(),
            wanted.describe(),
            ask(wanted)
        ));
    }
    if endpoint.region != region {
        return Err(format!(
            "is in another region, not in greengrass.aws_region ({region:?}). Correct the region or the endpoint: {}",
            ask(wanted)
        ));
    }
    if !aws::is_of_partition(&host, region) {
        return Err(format!(
            "does not end in {:?}, as the endpoints of the region {region} do. {}",
            aws::partition(region).domain,
            ask(wanted)
        ));
    }
    Ok(endpoint.is_legacy.then(|| {
        format!(
            "has no \"-ats\": AWS IoT no longer supports the root of these older endpoints' certificates, which do not \
             chain up to Amazon's roots. {}",
            ask(wanted)
        )
    }))
}

/// AWS IoT API reference, CreateRoleAlias, roleAlias: `[\w=,@-]+`.
fn is_role_alias(text: &str) -> bool {
    text.len() <= MAX_ROLE_ALIAS
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_=,@-".contains(&b))
}

fn is_account_id(text: &str) -> bool {
    text.len() == ACCOUNT_ID && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn good() -> Greengrass {
        Greengrass {
            aws_region: "eu-central-1".into(),
            iot_data_endpoint: "abc-ats.iot.eu-central-1.amazonaws.com".into(),
            iot_credential_endpoint: "def.credentials.iot.eu-central-1.amazonaws.com".into(),
            iot_role_alias: "Alias".into(),
            ..Greengrass::default()
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Greengrass), words: &[&str]) {
        let mut settings = good();
        change(&mut settings);
        let error = settings.check().unwrap_err().to_string();
        for words in words {
            assert!(error.contains(words), "no {words:?} in: {error}");
        }
    }

    #[test]
    fn values_have_a_form() {
        assert_eq!(good().check().unwrap(), Vec::<String>::new());
        for host in [
            "...",
            "a..b",
            "-a.b",
            "a.b.",
            "a_b",
            "https://a",
            &"x".repeat(64),
        ] {
            refused(
                |s| s.iot_data_endpoint = host.into(),
                &["iot_data_endpoint", "a host name"],
            );
        }
        for id in ["abc", "1234", "1234-5678-9012", "1234567890123"] {
            refused(
                |s| s.aws_account_id = id.into(),
                &["aws_account_id", "12 digits"],
            );
        }
        refused(
            |s| s.aws_region = "Frankfurt".into(),
            &["aws_region", "eu-central-1"],
        );
        let arn = "arn:aws:iot:eu-central-1:123456789012:rolealias/Alias";
        refused(
            |s| s.iot_role_alias = arn.into(),
            &["iot_role_alias", "not its ARN"],
        );
    }

    #[test]
    fn values_agree() {
        let other = ["iot_data_endpoint", "another region", "us-west-2"];
        refused(|s| s.aws_region = "us-west-2".into(), &other);
        refused(
            |s| s.iot_credential_endpoint = "def.credentials.iot.eu-central-2.api.aws".into(),
            &["iot_credential_endpoint", "another region"],
        );
        refused(
            |s| std::mem::swap(&mut s.iot_data_endpoint, &mut s.iot_credential_endpoint),
            &[
                "iot_data_endpoint",
                "is AWS IoT's credentials endpoint",
                "iot:Data-ATS",
            ],
        );
        refused(
            |s| s.iot_credential_endpoint = s.iot_data_endpoint.to_uppercase(),
            &[
                "iot_credential_endpoint",
                "is AWS IoT's data endpoint",
                "iot:CredentialProvider",
            ],
        );
        refused(
            |s| {
                s.aws_region = "cn-north-1".into();
                s.iot_data_endpoint = "abc.ats.iot.cn-north-1.amazonaws.com".into();
            },
            &["amazonaws.com.cn"],
        );
        refused(
            |s| s.iot_data_endpoint = "bucket.s3.eu-central-1.amazonaws.com".into(),
            &["not an AWS IoT endpoint"],
        );
    }

    #[test]
    fn the_older_endpoint_is_a_remark_and_a_custom_domain_is_not() {
        let mut settings = good();
        settings.iot_data_endpoint = "abc.iot.eu-central-1.amazonaws.com".into();
        let remarks = settings.check().unwrap();
        assert_eq!(remarks.len(), 1);
        assert!(remarks[0].contains("no \"-ats\""), "{remarks:?}");
        settings.iot_data_endpoint = "mqtt.example.com".into();
        settings.iot_credential_endpoint = "credentials.iot.example.com".into();
        assert_eq!(settings.check().unwrap(), Vec::<String>::new());
    }
}
