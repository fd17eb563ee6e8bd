//! A Windows behind SSH: what is said to its PowerShell, which is played. Nothing for `/bin/sh` may come.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_machine::{Command, Guest as _};
use sha2::{Digest as _, Sha256};

use super::testing::{Faults, SshServer};
use super::{
    BuildKey, PowerShell, RemoteScript, ScriptEnd, ScriptOutput, SshAccess, SshGuest, WaitInput, imitate,
    run_script, wait_for_guest,
};

/// What PowerShell prints for a command, and its exit status. Paths are names in one folder.
pub(super) fn played(line: String, stdin: Vec<u8>, disk: &Path) -> (Vec<u8>, Vec<u8>, u32) {
    let no = |why: String| (Vec::new(), why.into_bytes(), 1);
    let coded = line.strip_prefix("powershell.exe ").and_then(|rest| rest.split(" -EncodedCommand ").nth(1));
    let Some(coded) = coded else { return no(format!("cmd.exe does not know: {line}")) };
    let utf16: Vec<u16> = STANDARD
        .decode(coded)
        .unwrap()
        .chunks(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    let program = String::from_utf16(&utf16).unwrap();
    let sum = |content: &[u8]| -> String {
        Sha256::digest(content).iter().map(|byte| format!("{byte:02X}")).collect()
    };
    let file = || {
        let path = program.split("FromBase64String('").nth(1).unwrap().split('\'').next().unwrap();
        let path = String::from_utf8(STANDARD.decode(path).unwrap()).unwrap();
        disk.join(path.rsplit('\\').next().unwrap())
    };
    let whole = || {
        let lines = stdin.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        lines.flat_map(|line| STANDARD.decode(line).unwrap()).collect::<Vec<u8>>()
    };
    if program.starts_with("# forge: put") {
        std::fs::write(file(), whole()).unwrap();
        return (format!("forge-put {}\r\n", sum(&whole())).into_bytes(), Vec::new(), 0);
    }
    if program.starts_with("# forge: get") {
        let Ok(content) = std::fs::read(file()) else { return no("Could not find file".into()) };
        let mut out: String = content.chunks(48).map(|piece| STANDARD.encode(piece) + "\r\n").collect();
        out.push_str(&format!("forge-get {}\r\n", sum(&content)));
        return (out.into_bytes(), Vec::new(), 0);
    }
    let command = Command { line, stdin, native: true, ..Command::default() };
    match imitate(&command, 3) {
        Some(answer) => (answer, Vec::new(), 0),
        None => no(format!("PowerShell does not know: {program}")),
    }
}

async fn windows(server: &SshServer) -> Arc<SshGuest> {
    let input = WaitInput {
        access: SshAccess { windows: true, ..SshAccess::default() },
        source: Arc::new(server.address),
        user: "forge".into(),
        key: Arc::new(BuildKey::generate().unwrap()),
        host_key: None,
        limit: Duration::from_secs(60),
    };
    wait_for_guest(input, &|_| {}).await.unwrap()
}

#[derive(Default)]
struct Lines(Vec<String>);

impl ScriptOutput for Lines {
    fn line(&mut self, line: &str, _: bool) {
        self.0.push(line.to_owned());
    }
}

#[tokio::test]
async fn windows_over_ssh_runs_scripts_by_their_nonce_and_carries_files() {
    let disk = tempfile::tempdir().unwrap();
    let faults = Faults { windows: Some(disk.path().to_owned()), ..Faults::default() };
    let server = SshServer::start(faults).await;
    let guest = windows(&server).await;
    let script = RemoteScript::powershell("Write-Output 'x'", PowerShell::default());
    let mut lines = Lines::default();
    let run = run_script(guest.as_ref(), &script, &mut lines).await.unwrap();
    // The exit status of the session is 0: the script's own is in its mark.
    assert_eq!((run.end, lines.0), (ScriptEnd::Exited(3), Vec::new()));
    assert!(run.begun.is_some());

    let content: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    guest.put("C:\\folder\\file.bin", &content, 0o644).await.unwrap();
    assert!(std::fs::read(disk.path().join("file.bin")).unwrap() == content);
    assert!(guest.get("C:\\folder\\file.bin", 1 << 20).await.unwrap() == content);
    let missing = crate::engine::error::chain(&guest.get("C:\\missing", 10).await.unwrap_err());
    assert!(missing.contains("Could not find file"), "{missing}");

    // A connection that is lost before the mark is no success there either.
    server.change(|faults| faults.cut_input_at = Some(500));
    let run = run_script(guest.as_ref(), &script, &mut Lines::default()).await.unwrap();
    assert!(matches!(run.end, ScriptEnd::Truncated(_)), "{run:?}");
}
