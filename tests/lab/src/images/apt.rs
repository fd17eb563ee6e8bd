//! The machine's own apt sources, as `mmdebstrap` wants them: no mirror is named in this project.

use anyhow::{Context as _, bail};

use super::command::{command, run};

/// The Debian release that guests are made of.
pub const SUITE: &str = "bookworm";

/// What is asked of apt about each of its index files.
const FORMAT: &str = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(LABEL)|$(CREATED_BY)";

/// The sources of Debian's release and its security updates, one `deb` line each, from what the machine's apt knows.
///
/// # Errors
/// apt is missing (not a Debian-like host) or knows no Debian mirror.
pub fn sources() -> anyhow::Result<Vec<String>> {
    let lines = sources_from(&targets()?);
    if lines.is_empty() {
        bail!("apt knows no Debian mirror: add one to /etc/apt/sources.list.d and run apt-get update");
    }
    Ok(lines)
}

/// The address of the machine's Debian mirror.
///
/// # Errors
/// As [`sources`].
pub fn mirror() -> anyhow::Result<String> {
    let targets = targets()?;
    let uri = targets.lines().find_map(|target| match target.split('|').collect::<Vec<_>>()[..] {
        [uri, _, "main", "Debian", "Packages"] => Some(uri.to_owned()),
        _ => None,
    });
    uri.context("apt knows no Debian mirror")
}

/// Whether a suite is among apt's sources.
///
/// # Errors
/// apt is missing.
pub fn has_suite(suite: &str) -> anyhow::Result<bool> {
    Ok(targets()?.lines().any(|target| target.split('|').nth(1) == Some(suite)))
}

fn targets() -> anyhow::Result<String> {
    run(command("apt-get").args(["indextargets", "--format", FORMAT]))
}

/// Picks the mirrors out of apt's index targets and writes the lines for [`SUITE`]: on a host of another Debian
/// release the same mirrors serve.
fn sources_from(targets: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for target in targets.lines() {
        let fields: Vec<&str> = target.split('|').collect();
        let [uri, _, "main", label, "Packages"] = fields[..] else { continue };
        let line = match label {
            "Debian" => format!("deb {uri} {SUITE} main"),
            "Debian-Security" => format!("deb {uri} {SUITE}-security main"),
            _ => continue,
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_s_mirrors_are_used_whatever_its_release() {
        let targets = "http://m.example/debian/|trixie|main|Debian|Packages\n\
                       http://m.example/debian/|trixie-updates|main|Debian|Packages\n\
                       http://m.example/debian/|trixie|contrib|Debian|Packages\n\
                       http://m.example/security/|trixie-security|main|Debian-Security|Packages\n\
                       http://other.example/|nodistro|main|Node|Packages\n";
        assert_eq!(
            sources_from(targets),
            [
                "deb http://m.example/debian/ bookworm main",
                "deb http://m.example/security/ bookworm-security main"
            ]
        );
    }
}
