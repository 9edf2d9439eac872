//! What AWS's names reveal: the partition of a region, the region and the purpose of an endpoint.

/// A group of regions with domains of its own (AWS General Reference, "Partitions"; the domains are those of
/// the AWS SDKs' `partitions.json`).
#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    /// The name in ARNs.
    pub name: &'static str,
    /// The prefix of the regions' names.
    prefix: &'static str,
    /// The domain of the endpoints' host names.
    pub domain: &'static str,
    /// The same for endpoints that also have IPv6.
    dual_stack: &'static str,
}

/// The last one's prefix fits every region.
const PARTITIONS: [Partition; 4] = [
    Partition {
        name: "aws-cn",
        prefix: "cn-",
        domain: "amazonaws.com.cn",
        dual_stack: "api.amazonwebservices.com.cn",
    },
    Partition {
        name: "aws-us-gov",
        prefix: "us-gov-",
        domain: "amazonaws.com",
        dual_stack: "api.aws",
    },
    Partition {
        name: "aws-eusc",
        prefix: "eusc-",
        domain: "amazonaws.eu",
        dual_stack: "api.amazonwebservices.eu",
    },
    COMMERCIAL,
];

const COMMERCIAL: Partition = Partition {
    name: "aws",
    prefix: "",
    domain: "amazonaws.com",
    dual_stack: "api.aws",
};

/// The partition that a region belongs to.
pub fn partition(region: &str) -> &'static Partition {
    PARTITIONS
        .iter()
        .find(|partition| region.starts_with(partition.prefix))
        .unwrap_or(&COMMERCIAL)
}

/// Whether the text has the form of a region's name: words in lower case, and a number ("eu-central-1").
pub fn is_region(text: &str) -> bool {
    let Some((words, number)) = text.rsplit_once('-') else {
        return false;
    };
    let is_word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase());
    words.contains('-')
        && words.split('-').all(is_word)
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
}

/// The purpose of an endpoint of AWS IoT (AWS IoT API reference, DescribeEndpoint).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `iot:Data-ATS`, or the older `iot:Data`: MQTT.
    Data,
    /// `iot:CredentialProvider`: the token exchange service.
    Credentials,
    /// `iot:Jobs`.
    Jobs,
    /// The control plane, which no device talks to.
    Control,
}

impl Purpose {
    /// In words, for a message.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Data => "data endpoint",
            Self::Credentials => "credentials endpoint",
            Self::Jobs => "jobs endpoint",
            Self::Control => "control plane endpoint",
        }
    }

    /// The name under which `aws iot describe-endpoint` knows it.
    pub fn endpoint_type(self) -> &'static str {
        match self {
            Self::Data | Self::Control => "iot:Data-ATS",
            Self::Credentials => "iot:CredentialProvider",
            Self::Jobs => "iot:Jobs",
        }
    }
}

/// An endpoint in one of AWS's domains: `<account>-ats.iot.<region>.<domain>` for data,
/// `<account>.credentials.iot.<region>.<domain>` for credentials; `<account>.ats.iot` in cn-north-1, `iot-fips` in
/// place of `iot` under FIPS 140, `vpce` before the domain in a VPC (AWS IoT Core developer guide, "Connect to AWS IoT
/// Core" and "Connect to AWS IoT FIPS endpoints"; AWS PrivateLink, "Interface endpoints").
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// The region in it.
    pub region: &'a str,
    /// What it is for.
    pub purpose: Purpose,
    /// It is one of the older endpoints, `iot:Data`: the root of their server certificates is no longer supported
    /// (AWS IoT Core developer guide, "Server authentication").
    pub is_legacy: bool,
}

/// A host name in one of AWS's domains that is not an endpoint of AWS IoT.
#[derive(Debug, PartialEq, Eq)]
pub struct NoEndpoint;

impl<'a> Endpoint<'a> {
    /// Parses a host name in lower case; `None` for a domain that is not AWS's.
    pub fn parse(host: &'a str) -> Option<Result<Self, NoEndpoint>> {
        let name = PARTITIONS
            .iter()
            .flat_map(|partition| [partition.domain, partition.dual_stack])
            .find_map(|domain| below(host, domain))?;
        Some(Self::of(name).ok_or(NoEndpoint))
    }

    /// The same without the domain.
    fn of(name: &'a str) -> Option<Self> {
        let mut labels: Vec<&str> = name.split('.').collect();
        let in_vpc = labels.last() == Some(&"vpce");
        if in_vpc {
            labels.pop();
        }
        let region = labels.pop().filter(|label| is_region(label))?;
        let service = labels.pop()?;
        if !["iot", "iot-fips"].contains(&service) {
            return None;
        }
        let last = labels.last().copied();
        let purpose = match last {
            None => Purpose::Control,
            Some("credentials") => Purpose::Credentials,
            Some("jobs") => Purpose::Jobs,
            Some(_) => Purpose::Data,
        };
        let is_ats = last.is_some_and(|label| label == "ats" || label.ends_with("-ats"));
        Some(Self {
            region,
            purpose,
            is_legacy: purpose == Purpose::Data && !is_ats && service == "iot" && !in_vpc,
        })
    }
}

/// The part before the domain, if the host is in it.
fn below<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    host.strip_suffix(domain)?.strip_suffix('.')
}

/// Whether the host is in a domain of the region's partition.
pub fn is_of_partition(host: &str, region: &str) -> bool {
    let partition = partition(region);
    [partition.domain, partition.dual_stack]
        .iter()
        .any(|domain| below(host, domain).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_have_their_partition() {
        for (region, name, domain) in [
            ("eu-central-1", "aws", "amazonaws.com"),
            ("us-east-1", "aws", "amazonaws.com"),
            ("cn-northwest-1", "aws-cn", "amazonaws.com.cn"),
            ("us-gov-east-1", "aws-us-gov", "amazonaws.com"),
            ("eusc-de-east-1", "aws-eusc", "amazonaws.eu"),
        ] {
            assert!(is_region(region), "{region}");
            let found = partition(region);
            assert_eq!((found.name, found.domain), (name, domain));
        }
        for none in [
            "Frankfurt",
            "eu-central",
            "eu-central-1a",
            "EU-central-1",
            "eu--1",
            "eu-1",
            "1",
            "",
        ] {
            assert!(!is_region(none), "{none}");
        }
    }

    #[test]
    fn endpoints_tell_region_and_purpose() {
        use Purpose::*;
        for (host, region, purpose, is_legacy) in [
            (
                "a1-ats.iot.eu-west-1.amazonaws.com",
                "eu-west-1",
                Data,
                false,
            ),
            ("a1.iot.eu-west-1.amazonaws.com", "eu-west-1", Data, true),
            ("a1-ats.iot.us-east-1.api.aws", "us-east-1", Data, false),
            (
                "a1.ats.iot.cn-north-1.amazonaws.com.cn",
                "cn-north-1",
                Data,
                false,
            ),
            (
                "a1-ats.iot.cn-northwest-1.amazonaws.com.cn",
                "cn-northwest-1",
                Data,
                false,
            ),
            (
                "data.iot-fips.us-gov-west-1.amazonaws.com",
                "us-gov-west-1",
                Data,
                false,
            ),
            (
                "vpce-0a1b-c2d3.data.iot.us-east-1.vpce.amazonaws.com",
                "us-east-1",
                Data,
                false,
            ),
            (
                "c1.credentials.iot.eu-west-1.amazonaws.com",
                "eu-west-1",
                Credentials,
                false,
            ),
            (
                "data.credentials.iot-fips.us-west-2.amazonaws.com",
                "us-west-2",
                Credentials,
                false,
            ),
            (
                "c1.credentials.iot.eu-west-1.api.aws",
                "eu-west-1",
                Credentials,
                false,
            ),
            (
                "a1.jobs.iot.eu-west-1.amazonaws.com",
                "eu-west-1",
                Jobs,
                false,
            ),
            ("iot.eu-west-1.amazonaws.com", "eu-west-1", Control, false),
        ] {
            let wanted = Endpoint {
                region,
                purpose,
                is_legacy,
            };
            assert_eq!(Endpoint::parse(host), Some(Ok(wanted)), "{host}");
        }
        for none in [
            "s3.eu-west-1.amazonaws.com",
            "iot.amazonaws.com",
            "x.api.aws",
        ] {
            assert_eq!(Endpoint::parse(none), Some(Err(NoEndpoint)), "{none}");
        }
        for custom in [
            "iot.example.com",
            "amazonaws.com",
            "notamazonaws.com",
            "localhost",
        ] {
            assert_eq!(Endpoint::parse(custom), None, "{custom}");
        }
    }
}
