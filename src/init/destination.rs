//! `[user@]HOST[:PORT]`.

use std::fmt;
use std::str::FromStr;

/// Whom to log in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The user.
    pub user: String,
    /// The host's name or address; an IPv6 address without its brackets.
    pub host: String,
    /// The port, when one is named.
    pub port: Option<u16>,
}

impl Destination {
    /// The host as it stands in a URL.
    #[must_use]
    pub fn in_url(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (user, rest),
            None => ("root", text),
        };
        let port_of = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let (host, port) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (host, port) = inner.split_once(']').ok_or("the bracket is not closed")?;
                (host, port.strip_prefix(':'))
            }
            // More than one colon is an IPv6 address, whose port would need brackets.
            None => match rest.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (rest, None),
            },
        };
        let sound = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if user.is_empty() || host.is_empty() || host.starts_with('-') || !host.chars().all(sound) {
            return Err("it has the form [USER@]HOST[:PORT]".to_owned());
        }
        let port =
            port.map(|text| port_of(text).ok_or_else(|| format!("`{text}` is no port"))).transpose()?;
        Ok(Self { user: user.to_owned(), host: host.to_owned(), port })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.in_url())?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_in_every_form() {
        for (text, user, host, port) in [
            ("pve1", "root", "pve1", None),
            ("ops@pve1.example.org:2222", "ops", "pve1.example.org", Some(2222)),
            ("root@pam@192.0.2.7", "root@pam", "192.0.2.7", None),
            ("root@[fd00::1]:22", "root", "fd00::1", Some(22)),
            ("fd00::1", "root", "fd00::1", None),
        ] {
            let expected = Destination { user: user.into(), host: host.into(), port };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "@pve", "pve:0", "pve:x", "-oProxyCommand=x", "a b", "[fd00::1"] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }
}
