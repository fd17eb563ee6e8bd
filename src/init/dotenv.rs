//! The file of variables (`.env.proxmox`), in the users' names. Pure.

use std::path::Path;

use super::InitError;
use super::site::Table;
use crate::config::environment::read_env_file;

/// The variable with the token's secret.
pub const SECRET: &str = "PROXMOX_TOKEN_SECRET";

/// The variables that a target makes, in their order; the secret stands where it is known.
#[must_use]
pub fn variables(table: &Table, secret: Option<&str>, http_port: Option<u16>) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("PROXMOX_URL", format!("{}/api2/json", table.url)),
        ("PROXMOX_TOKEN_ID", table.token_id.clone()),
    ];
    all.extend(secret.map(|secret| (SECRET, secret.to_owned())));
    all.extend(table.nodes.first().map(|node| ("PROXMOX_NODE", node.clone())));
    all.push(("PROXMOX_SKIP_TLS_VERIFY", "false".to_owned()));
    all.extend(table.fingerprint.clone().map(|text| ("PROXMOX_TLS_FINGERPRINT", text)));
    all.extend(table.disks.clone().map(|name| ("PROXMOX_STORAGE_VM", name)));
    all.extend(table.isos.clone().map(|name| ("PROXMOX_STORAGE_ISO", name)));
    all.extend(table.disks.clone().map(|name| ("PROXMOX_CLOUDINIT_STORAGE", name)));
    all.extend(table.bridge.clone().map(|name| ("PROXMOX_BRIDGE", name)));
    all.extend(table.pool.clone().map(|name| ("PROXMOX_POOL", name)));
    if let Some(port) = http_port {
        all.push(("PACKER_HTTP_BIND_ADDRESS", "0.0.0.0".to_owned()));
        all.push(("PACKER_HTTP_PORT", port.to_string()));
    }
    all
}

/// What becomes of a file of variables; `None` when it says all of this already. Others' variables and lines stay; of ours
/// the secret is renewed, and what a person may have changed stays.
///
/// # Errors
/// When it is of another server or token, and is not to be forced.
pub fn fate(
    file: &Path,
    existing: Option<&str>,
    wanted: &[(&'static str, String)],
    force: bool,
) -> Result<Option<String>, InitError> {
    let Some(existing) = existing else {
        let lines: String = wanted.iter().map(|(name, value)| assignment(name, value)).collect();
        return Ok(Some(format!(
            "# Made by `forge init proxmox`. It holds a secret: keep it out of version control.\n{lines}"
        )));
    };
    let (there, findings) = read_env_file(file, existing);
    if let Some(finding) = findings.iter().find(|finding| finding.fatal) {
        return Err(InitError::refused(format!("a fault in the file of variables: {finding}")));
    }
    let mut text = existing.to_owned();
    for (name, value) in wanted {
        match there.get(*name) {
            Some(same) if same == value => continue,
            None => {
                let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
                text.push_str(&format!("{end}{}", assignment(name, value)));
            }
            Some(_) if *name == SECRET || force => text = with_value(&text, name, value),
            Some(other) => {
                let essential =
                    matches!(*name, "PROXMOX_URL" | "PROXMOX_TOKEN_ID" | "PROXMOX_TLS_FINGERPRINT");
                if essential && !same_place(name, other, value) {
                    let what = format!("{}: {name} is {other}, not {value}", file.display());
                    return Err(
                        InitError::refused(what).help("--force replaces it, --env-file names another file")
                    );
                }
            }
        }
    }
    Ok((text != existing).then_some(text))
}

fn same_place(name: &str, one: &str, other: &str) -> bool {
    let plain = |url: &str| url.trim_end_matches('/').trim_end_matches("/api2/json").to_owned();
    name == "PROXMOX_URL" && plain(one) == plain(other)
}

/// As a shell reads it.
fn assignment(name: &str, value: &str) -> String {
    let sound = |c: char| c.is_ascii_alphanumeric() || "-_.:/@,".contains(c);
    match value.chars().all(sound) {
        true => format!("export {name}={value}\n"),
        false => format!("export {name}='{}'\n", value.replace('\'', r"'\''")),
    }
}

/// The text with another value of a variable.
fn with_value(text: &str, name: &str, value: &str) -> String {
    let mut done = String::new();
    for line in text.split_inclusive('\n') {
        let bare = line.trim_start();
        let bare =
            bare.strip_prefix("export").filter(|rest| rest.starts_with(char::is_whitespace)).unwrap_or(bare);
        let is_it = bare.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
        match is_it {
            true => done.push_str(&assignment(name, value)),
            false => done.push_str(line),
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            name: "pve".into(),
            url: "https://pve1:8006".into(),
            token_id: "forge@pve!build".into(),
            nodes: vec!["pve1".into()],
            disks: Some("local-lvm".into()),
            bridge: Some("vmbr0".into()),
            ..Table::default()
        }
    }

    fn made(existing: Option<&str>, secret: &str, force: bool) -> Result<Option<String>, InitError> {
        fate(Path::new(".env"), existing, &variables(&table(), Some(secret), Some(8802)), force)
    }

    #[test]
    fn a_new_file_is_read_by_a_shell_and_by_forge_alike_and_stays_the_next_time() {
        let text = made(None, "0-1", false).expect("possible").expect("new");
        let (read, findings) = read_env_file(Path::new(".env"), &text);
        assert_eq!(findings, []);
        assert_eq!(read["PROXMOX_TOKEN_ID"], "forge@pve!build");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("env");
        std::fs::write(&file, &text).expect("written");
        let script = ". ./env && printf %s \"$PROXMOX_TOKEN_ID $PROXMOX_TOKEN_SECRET $PACKER_HTTP_PORT\"";
        let output = std::process::Command::new("sh")
            .args(["-c", script])
            .current_dir(folder.path())
            .output()
            .expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "forge@pve!build 0-1 8802");
        assert_eq!(made(Some(&text), "0-1", false).expect("possible"), None);
    }

    #[test]
    fn others_lines_stay_and_only_the_secret_is_renewed() {
        let theirs = "# theirs\nexport OTHER=1\nexport PROXMOX_BRIDGE=\"vmbr9\"\n  export PROXMOX_TOKEN_SECRET='old'\n";
        let text = made(Some(theirs), "new", false).expect("possible").expect("changed");
        assert!(
            text.starts_with(
                "# theirs\nexport OTHER=1\nexport PROXMOX_BRIDGE=\"vmbr9\"\nexport PROXMOX_TOKEN_SECRET=new\n"
            ),
            "{text}"
        );
        assert!(text.contains("export PROXMOX_URL=https://pve1:8006/api2/json\n"), "{text}");
        let other = "export PROXMOX_URL=https://other:8006\n";
        let error = made(Some(other), "new", false).expect_err("another server");
        assert!(error.to_string().contains("PROXMOX_URL is https://other:8006"), "{error}");
        let forced = made(Some(other), "new", true).expect("forced").expect("changed");
        assert!(!forced.contains("other"), "{forced}");
    }
}
