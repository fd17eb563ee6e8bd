//! Paths, queries and form bodies, encoded the way pveproxy decodes them.
//!
//! Its form decoder splits at `&` and at `;` (pve-http-server `decode_urlencoded`), so everything outside the
//! unreserved set is escaped, `;` first of all.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// RFC 3986's unreserved characters stay as they are; `encodeURIComponent` would leave `!*'()` too, which is
/// the same to the decoder.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Escapes one value.
#[must_use]
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Joins segments to a path, each escaped: UPIDs and volume names contain `:`, `@`, `!` and `/`.
#[must_use]
pub fn path(segments: &[&str]) -> String {
    segments.iter().map(|segment| format!("/{}", escape(segment))).collect()
}

/// Parameters in the order they are sent. A key appears at most once, but for arrays: a repeated key is one to Proxmox.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// No parameters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a parameter, replacing an earlier value.
    pub fn set(&mut self, key: impl Into<String>, value: impl fmt::Display) {
        let (key, value) = (key.into(), value.to_string());
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some(entry) => entry.1 = value,
            None => self.0.push((key, value)),
        }
    }

    /// Sets a parameter and hands the parameters on.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        self.set(key, value);
        self
    }

    /// Adds an element to an array and hands the parameters on.
    #[must_use]
    pub fn also(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        self.0.push((key.into(), value.to_string()));
        self
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The form or query string.
    #[must_use]
    pub fn encode(&self) -> String {
        let pairs: Vec<String> =
            self.0.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
        pairs.join("&")
    }
}

impl fmt::Debug for Params {
    /// Shows names only: values may be keys, passwords or the seed's secret path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_never_reaches_the_wire_bare() {
        let params = Params::new().with("boot", "order=scsi0;net0").with("full", 1);
        assert_eq!(params.encode(), "boot=order%3Dscsi0%3Bnet0&full=1");
    }

    #[test]
    fn a_upid_becomes_one_path_segment() {
        let upid = "UPID:pve:00000298:00047C8D:6B010564:qmdestroy:9000:automation@pve!forge:";
        assert_eq!(
            path(&["nodes", "pve", "tasks", upid, "status"]),
            "/nodes/pve/tasks/UPID%3Apve%3A00000298%3A00047C8D%3A6B010564%3Aqmdestroy%3A9000%3Aautomation%40pve%21forge%3A/status"
        );
    }

    #[test]
    fn setting_twice_keeps_one_value() {
        let params = Params::new().with("name", "a").with("name", "b c+ü");
        assert_eq!(params.encode(), "name=b%20c%2B%C3%BC");
    }

    #[test]
    fn debug_shows_no_values() {
        assert_eq!(format!("{:?}", Params::new().with("cipassword", "hush")), "[\"cipassword\"]");
    }
}
