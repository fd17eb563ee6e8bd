//! The lab's page in a real browser: what it shows, that it follows, and how it looks in the dark and on a phone.

use std::time::{Duration, Instant};

use anyhow::ensure;
use forge_lab::browser::{Browser, LIMIT};
use forge_lab::{Fault, Gate, ImportVm, LabConfig};
use serde_json::json;

use super::lab_with;
use super::novnc::echo_disk;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_a_guest_s_screen_tasks_and_calls_and_follows_them() -> anyhow::Result<()> {
    if !Browser::can_be_had()? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let nodes = vec!["pve1".to_owned(), "pve2".to_owned()];
    let (lab, client) = lab_with(LabConfig { nodes, ..LabConfig::default() }).await?;
    lab.set_online("pve2", false);
    let disk = Some(echo_disk(folder.path())?);
    lab.import_vm(ImportVm {
        vmid: 9300,
        name: "echo".to_owned(),
        disk: disk.clone(),
        memory: 32,
        agent: false,
        tags: "red;blue".to_owned(),
        ..ImportVm::default()
    })
    .await?;
    let base = ImportVm { vmid: 9301, name: "base".to_owned(), template: true, disk, ..ImportVm::default() };
    lab.import_vm(base).await?;
    assert_eq!(client.done("POST", "/nodes/pve1/qemu/9300/status/start", "").await?, "OK");
    let wrong = client.call("PUT", "/nodes/pve1/qemu/9300/config", "memory=lots").await?;
    assert_eq!(wrong.status, 400);
    let failed = client.done("POST", "/nodes/pve1/qemu/9301/status/start", "").await?;
    assert_eq!(failed, "you can't start a vm if it's a template");
    let calls = lab.requests().len();

    let mut browser = Browser::start().await?;
    browser.width(1280).await?;
    browser.open(&lab.url()).await?;
    let text = "document.body?.innerText";
    browser.until("document.getElementById('live')?.textContent === 'live'", text).await?;
    for part in [
        "pve1 online 2 VMs, 1 running",
        "pve2 offline 0 VMs, 0 running",
        "9300 echo running blue red",
        "9301 base template",
        "you can't start a vm if it's a template",
        "400 Parameter verification failed. memory: ",
        "PUT /nodes/pve1/qemu/9300/config",
        "automation@pve!forge",
    ] {
        // Words stand in cells and lines of their own.
        let shown = "document.body.innerText.toLowerCase().replace(/\\s+/g, ' ')";
        browser.until(&format!("{shown}.includes({})", json!(part.to_lowercase())), text).await?;
    }

    // The guest's screen is a picture of its own, and another one once it shows something else.
    let image = "document.querySelector('#vm-9300 img')";
    browser.until(&format!("{image}?.naturalWidth >= 640 && {image}.src.startsWith('blob:')"), text).await?;
    let first = browser.value(&format!("{image}.dataset.tag")).await?;
    browser.until("document.querySelector('#vm-9301 img') === null", text).await?;
    let mut shown = ">".to_owned();
    for key in ["h", "e", "l", "l", "o"] {
        shown.push_str(key);
        let started = Instant::now();
        let reply = client.call("PUT", "/nodes/pve1/qemu/9300/sendkey", &format!("key={key}")).await?;
        assert_eq!(reply.line(), "200 OK");
        while !lab.serial_log(9300).ends_with(&shown) {
            ensure!(started.elapsed() < LIMIT, "the guest got {:?}", lab.serial_log(9300));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    browser.until(&format!("{image}.dataset.tag !== {first}"), &format!("{image}.dataset.tag")).await?;

    // A task is seen at work and at its end.
    let gate = Gate::new();
    lab.faults().on("POST", "/nodes/*/qemu/*/status/stop").then(Fault::TaskHold(gate.clone()));
    let stop = client.call("POST", "/nodes/pve1/qemu/9300/status/stop", "").await?;
    let state = "document.querySelector('#tasks tbody tr [data-is=state]').textContent";
    let task = "document.querySelector('#tasks tbody tr [data-is=task]').textContent === 'qmstop 9300'";
    browser.until(&format!("{task} && {state} === 'running'"), text).await?;
    browser.keep("light").await?;
    let light = browser.value("getComputedStyle(document.body).backgroundColor").await?;
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    browser.call("Emulation.setEmulatedMedia", dark).await?;
    let is_dark = format!(
        "getComputedStyle(document.body).backgroundColor !== {light} && getComputedStyle(document.body).color !== 'rgb(27, 32, 39)'"
    );
    browser.until(&is_dark, "getComputedStyle(document.body).backgroundColor").await?;
    browser.keep("dark").await?;
    browser.width(390).await?;
    let overflow = "document.documentElement.scrollWidth";
    browser.until(&format!("innerWidth === 390 && {overflow} <= 390"), overflow).await?;
    browser.keep("phone").await?;
    browser.value("document.getElementById('calls').scrollIntoView()").await?;
    browser.keep("phone-calls").await?;
    browser.width(1280).await?;

    gate.release();
    assert_eq!(client.task(&stop).await?.0, "OK");
    browser.until(&format!("{task} && {state} === 'OK'"), text).await?;
    browser.until(&format!("{image} === null"), text).await?;

    // The filter holds while the table is replaced below it.
    browser
        .value("document.getElementById('filter').value = 'sendkey'; document.getElementById('filter').dispatchEvent(new Event('input'))")
        .await?;
    let seen = "[...document.querySelectorAll('#calls tbody tr')].filter(row => row.offsetParent !== null).map(row => row.textContent)";
    browser
        .until(&format!("{seen}.length > 0 && {seen}.every(row => row.includes('sendkey'))"), seen)
        .await?;

    assert!(browser.said.is_empty(), "{:#?}", browser.said);
    // Looking leaves no trace.
    let own = lab.requests().split_off(calls);
    assert!(own.iter().all(|call| !call.agent.starts_with("Mozilla")), "{own:#?}");
    let url = lab.url();
    lab.stop().await;
    browser.until("document.getElementById('live').textContent === 'the lab does not answer'", text).await?;
    ensure!(browser.value("location.origin").await? == url.as_str());
    browser.close().await?;
    Ok(())
}
