//! The secret path under which a seed is served.

use std::fmt;

use rand::RngExt as _;

/// 128 random bits as 32 hexadecimal digits. Whoever knows it can read the seed, so Debug does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SeedToken(String);

impl SeedToken {
    /// Makes a new one.
    #[must_use]
    pub fn generate() -> Self {
        let bits: u128 = rand::rng().random();
        Self(format!("{bits:032x}"))
    }

    /// The digits, for a URL and for whoever masks them in output.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The folder of the URL: `/<digits>/`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}/", self.0)
    }

    /// Whether a piece of a path is this token, in a time that does not tell how much of it was right.
    #[must_use]
    pub fn matches(&self, piece: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), piece.as_bytes());
        ours.len() == theirs.len()
            && ours.iter().zip(theirs).fold(0_u8, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl fmt::Debug for SeedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeedToken([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_128_bits_and_never_shown() {
        let (one, other) = (SeedToken::generate(), SeedToken::generate());
        assert_ne!(one, other);
        assert!(one.expose().len() == 32 && one.expose().chars().all(|c| c.is_ascii_hexdigit()));
        assert!(one.matches(one.expose()) && !one.matches(other.expose()) && !one.matches(""));
        assert!(!format!("{one:?}").contains(one.expose()));
    }
}
