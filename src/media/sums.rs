//! Publishers' files of checksums: GNU's form (`<digest>  name`), BSD's (`SHA256 (name) = <digest>`), signed or not, or
//! one digest alone.

use forge_machine::{Algorithm, Checksum};

use super::error::MediaError;

/// A line of such a file.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    algorithm: Algorithm,
    hex: String,
    /// Empty for a digest alone.
    name: String,
}

/// The checksum of a file in the text of a file of sums. `place` is where the sums are from, `wanted` the file's URL or
/// path, of which the last part counts, and parts before it where several files have the same name. Of several
/// algorithms the strongest is taken.
///
/// # Errors
/// When there is none, or there are several that differ.
pub fn find(text: &str, place: &str, wanted: &str) -> Result<Checksum, MediaError> {
    let wanted = wanted.split(['?', '#']).next().unwrap_or_default();
    let parts: Vec<String> = wanted.split('/').map(decoded).collect();
    let name = parts.last().cloned().unwrap_or_default();
    let entries: Vec<Entry> = text.lines().filter_map(entry).collect();
    let fits = |entry: &Entry| {
        let theirs: Vec<&str> = entry.name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let same =
            parts.iter().rev().zip(theirs.iter().rev()).take_while(|(one, other)| one == other).count();
        (theirs.last() == Some(&name.as_str())).then_some((same == theirs.len(), same))
    };
    let mut found: Vec<(Algorithm, (bool, usize), &str)> = entries
        .iter()
        .filter_map(|entry| Some((entry.algorithm, fits(entry)?, entry.hex.as_str())))
        .collect();
    if let ([only], true) = (entries.as_slice(), found.is_empty())
        && only.name.is_empty()
    {
        return Ok(Checksum::Digest { algorithm: only.algorithm, hex: only.hex.clone() });
    }
    found.sort_by_key(|(algorithm, fit, _)| (algorithm.digits(), *fit));
    let Some((algorithm, fit, hex)) = found.last().copied() else {
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).take(5).collect();
        let seen = match (entries.len(), names.join(", ")) {
            (0, _) => ": no line of it is a checksum".to_owned(),
            (1..=5, names) => format!(", only of {names}"),
            (count, names) => format!(", only of {count} others: {names}, …"),
        };
        return Err(MediaError::NoSum { place: place.to_owned(), name, seen });
    };
    let contradicts =
        |other: &(Algorithm, (bool, usize), &str)| other.0 == algorithm && other.1 == fit && other.2 != hex;
    if found.iter().any(contradicts) {
        return Err(MediaError::SeveralSums { place: place.to_owned(), name });
    }
    Ok(Checksum::Digest { algorithm, hex: hex.to_owned() })
}

/// A part of a URL without its percent signs.
fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn entry(line: &str) -> Option<Entry> {
    let line = line.trim();
    gnu(line).or_else(|| bsd(line))
}

fn digest(text: &str) -> Option<(Algorithm, String)> {
    let algorithm = Algorithm::of_length(text.len())?;
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| (algorithm, text.to_ascii_lowercase()))
}

/// `<digest>  name`, `<digest> *name`, or the digest alone. A backslash before it says that the name is escaped.
fn gnu(line: &str) -> Option<Entry> {
    let (escaped, line) = match line.strip_prefix('\\') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (first, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let (algorithm, hex) = digest(first)?;
    let name = rest.trim_start();
    let name = name.strip_prefix('*').unwrap_or(name);
    let name = if escaped { name.replace("\\n", "\n").replace("\\\\", "\\") } else { name.to_owned() };
    Some(Entry { algorithm, hex, name })
}

/// `SHA256 (name) = <digest>`, also as OpenSSL writes it: `SHA2-256(name)= <digest>`.
fn bsd(line: &str) -> Option<Entry> {
    let (head, hex) = line.rsplit_once('=')?;
    let (algorithm, hex) = digest(hex.trim())?;
    let (label, name) = head.trim().strip_suffix(')')?.split_once('(')?;
    let label: String =
        label.trim().to_ascii_lowercase().replace("sha2-", "sha").chars().filter(|c| *c != '-').collect();
    (label == algorithm.name()).then(|| Entry { algorithm, hex, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, wanted: &str) -> String {
        match find(text, "SUMS", wanted) {
            Ok(checksum) => checksum.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn publishers_files_are_read_in_each_of_their_forms() {
        let (a, b) = ("a1".repeat(32), "b2".repeat(32));
        let long = "c3".repeat(64);
        let url = "https://x.org/iso-cd/debian%2D12.iso?mirror=1";
        for (case, text) in [
            ("GNU", format!("{b}  other.iso\n{a}  debian-12.iso\n")),
            ("binary", format!("{} *debian-12.iso\r\n", a.to_uppercase())),
            ("with a folder", format!("{a}  ./iso-cd/debian-12.iso\n{b}  ./jigdo/debian-12.iso\n")),
            ("BSD", format!("SHA256 (other.iso) = {b}\nSHA256 (debian-12.iso) = {a}\n")),
            ("OpenSSL", format!("SHA2-256(debian-12.iso)= {a}\n")),
            (
                "signed",
                format!(
                    "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# debian-12.iso: 1 bytes\n\
                     SHA256 (debian-12.iso) = {a}\n-----BEGIN PGP SIGNATURE-----\niQIzBAEBCAAdFiEE\n"
                ),
            ),
            ("alone", format!("{a}\n")),
            ("alone, of standard input", format!("{a}  -\n{a}  debian-12.iso\n")),
            ("escaped", format!("\\{a}  debian-12.iso\n")),
            ("twice", format!("{a}  debian-12.iso\n{a}  ./debian-12.iso\n")),
        ] {
            assert_eq!(shown(&text, url), format!("sha256:{a}"), "{case}");
        }
        let strongest =
            format!("{a}  debian-12.iso\n{long}  debian-12.iso\n{}  debian-12.iso\n", "d".repeat(32));
        assert_eq!(shown(&strongest, url), format!("sha512:{long}"));
    }

    #[test]
    fn a_file_of_sums_without_the_file_or_with_two_of_it_is_no_proof() {
        let (a, b) = ("a1".repeat(32), "b2".repeat(32));
        let url = "https://x.org/debian.iso";
        for (text, words) in [
            (
                format!("{a}  debian.iso.asc\n{b}  xdebian.iso\n"),
                "has no checksum of debian.iso, only of debian.iso.asc, xdebian.iso",
            ),
            ("<html>404</html>".to_owned(), "no line of it is a checksum"),
            (String::new(), "no line of it is a checksum"),
            (format!("{a}  one/debian.iso\n{b}  two/debian.iso\n"), "several checksums of debian.iso"),
            (format!("SHA512 (debian.iso) = {a}\n"), "no line of it is a checksum"),
        ] {
            assert!(shown(&text, url).contains(words), "{}", shown(&text, url));
        }
    }
}
