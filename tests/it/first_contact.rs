//! The first contact with a target, at a terminal: its certificate is shown, and accepted or not.

use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::support::lab_site::{LIMIT, LabSite, SECRET_VARIABLE};

/// The site file without what its certificate is known by.
fn unpinned(site: &LabSite) -> String {
    let toml = site.forge_toml();
    toml.lines().filter(|line| !line.starts_with("tls")).fold(String::new(), |text, line| text + line + "\n")
}

/// Plans at a terminal of its own, which `script` gives it, and answers the question; gives exit code and screen.
async fn plan(site: &LabSite, answer: &str) -> anyhow::Result<(Option<i32>, String)> {
    let line = format!("{} --state-dir state plan tiny.toml", env!("CARGO_BIN_EXE_forge"));
    let mut child = Command::new("script")
        .args(["-qfec", &line, "/dev/null"])
        .current_dir(site.path())
        .env(SECRET_VARIABLE, &site.secret)
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (mut typed, mut shown) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let mut screen = String::new();
    let talk = async {
        let mut buffer = [0; 4096];
        let mut answered = false;
        while let Ok(count @ 1..) = shown.read(&mut buffer).await {
            screen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            if !answered && screen.contains("n: stop") {
                answered = true;
                assert!(site.lab.requests().is_empty(), "the token is not shown to a stranger");
                typed.write_all(format!("{answer}\n").as_bytes()).await?;
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIMIT, talk).await??;
    let status = tokio::time::timeout(LIMIT, child.wait()).await??;
    Ok((status.code(), screen))
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_an_unknown_certificate_is_shown_and_accepted_once_for_good_or_not_at_all()
-> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let before = unpinned(&site);
    site.write("forge.toml", &before);
    let file = || std::fs::read_to_string(site.path().join("forge.toml"));

    let (code, screen) = plan(&site, "n").await?;
    assert!(code == Some(3) && screen.contains(site.lab.fingerprint()), "{code:?} {screen}");
    assert!(screen.contains("not accepted") && site.lab.requests().is_empty(), "{screen}");
    assert_eq!(file()?, before);

    let (code, screen) = plan(&site, "w").await?;
    assert!(code == Some(0) && screen.contains("build VM"), "{code:?} {screen}");
    let setting = format!("tls = {{ fingerprint = \"{}\" }}\n", site.lab.fingerprint());
    assert_eq!(file()?.replace(&setting, ""), before);
    assert!(file()?.contains(&setting));
    // From now on nobody is asked.
    let done = site.run(&["plan", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_a_certificate_may_be_accepted_for_one_run() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write("forge.toml", &unpinned(&site));
    let (code, screen) = plan(&site, "y").await?;
    assert!(code == Some(0) && screen.contains("build VM"), "{code:?} {screen}");
    assert!(screen.contains("for good: tls = { fingerprint = "), "{screen}");
    assert_eq!(std::fs::read_to_string(site.path().join("forge.toml"))?, unpinned(&site));
    site.close().await;
    Ok(())
}
