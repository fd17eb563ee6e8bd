//! The page of `forge report` in a real browser: at a desk and on a phone, without a network.

use forge_lab::browser::Browser;
use serde_json::json;

use crate::support::lab_site::{LabSite, PROFILE};

/// What is too wide in the page: of an element that does not scroll by itself, more is there than is shown.
const TOO_WIDE: &str = "[...document.querySelectorAll('main, main *')]
    .filter(e => !e.closest('pre, .wide') && e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 1)
    .filter(e => getComputedStyle(e).overflowX === 'visible' && getComputedStyle(e).display !== 'inline')
    .map(e => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`)";

/// Texts whose letters are smaller than anybody reads on a phone.
const TOO_SMALL: &str = "[...document.querySelectorAll('main *')]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
    .filter(e => parseFloat(getComputedStyle(e).fontSize) < 12.5)
    .map(e => `${e.tagName}: ${getComputedStyle(e).fontSize} ${e.textContent.trim().slice(0, 40)}`)";

/// What the page asked for besides itself.
const ASKED: &str =
    "performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))";

/// Opens a page at both widths, with all that is folded opened.
async fn looks_right(
    browser: &mut Browser,
    site: &LabSite,
    name: &str,
    words: &[&str],
) -> anyhow::Result<()> {
    let url = format!("file://{}/{name}.html", site.path().display());
    for (width, device) in [(1280, "desk"), (375, "phone")] {
        browser.width(width).await?;
        browser.open(&url).await?;
        browser
            .until(
                "document.readyState === 'complete' && !!document.querySelector('footer')",
                "location.href",
            )
            .await?;
        browser.keep(&format!("report-{name}-{device}")).await?;
        browser.value("document.querySelectorAll('details').forEach(e => { e.open = true })").await?;
        let overflow = "document.documentElement.scrollWidth";
        browser.until(&format!("innerWidth === {width} && {overflow} <= {width}"), overflow).await?;
        for fault in [TOO_WIDE, TOO_SMALL, ASKED] {
            assert_eq!(browser.value(fault).await?, json!([]), "{name} on a {device}: {fault}");
        }
        // The time line is a picture, not a hair.
        let bars = "Math.min(...[...document.querySelectorAll('.line .track')].map(e => e.clientWidth))";
        browser.until(&format!("{bars} > 100"), bars).await?;
        let pictures = "[...document.images].every(e => e.complete && e.naturalWidth > 0)";
        browser.until(pictures, "document.images.length").await?;
        for word in words {
            let shown = format!("document.body.innerText.includes({})", json!(word));
            browser.until(&shown, "document.body.innerText").await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reports_of_a_tiny_guest_are_read_at_a_desk_and_on_a_phone_without_a_network()
-> anyhow::Result<()> {
    if !Browser::can_be_had()? {
        return Ok(());
    }
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    let word = "averylongwordwithoutanyblankthatnophoneisaswideas".repeat(4);
    let profile = PROFILE
        .replace("name = \"hello\"", &format!("name = \"{word}\""))
        .replace("echo hello", &format!("echo {word} hello"));
    site.write("tiny.toml", &profile);
    let broken = profile
        .replace("name = \"tiny\"", "name = \"broken\"")
        .replace("shell = [", "shell = [\"echo begun\", \"ls /");
    site.write("broken.toml", &broken.replace("ls /\"", &format!("ls /{word}\", \"")));
    for (arguments, code) in [
        (vec!["build", "broken.toml"], 1),
        (vec!["build", "tiny.toml"], 0),
        (vec!["test", "tpl-tiny", "--no-second-boot"], 0),
    ] {
        let done = site.run(&arguments).await;
        assert_eq!(done.code, Some(code), "{arguments:?}: {}{}", done.stdout, done.stderr);
    }
    let mut browser = Browser::start().await?;
    for (profile, words) in [
        ("tiny", [word.as_str(), "template tpl-tiny"]),
        ("broken", ["What went wrong", word.as_str()]),
        ("test-tpl-tiny", ["Checks of the template", "guest agent"]),
    ] {
        let folder = std::fs::read_dir(site.path().join("output").join(profile))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| !path.is_symlink())
            .expect("there is evidence");
        let file = format!("{profile}.html");
        let done = site.run(&["report", &folder.display().to_string(), "-o", &file]).await;
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        looks_right(&mut browser, &site, profile, &words).await?;
    }
    assert!(browser.said.is_empty(), "{:#?}", browser.said);
    browser.close().await?;
    site.close().await;
    Ok(())
}
