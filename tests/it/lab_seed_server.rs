//! Who is served a seed, and how long: builds of the tiny guest on the lab, by the real program.

use forge::event::{Envelope, Event};

use crate::support::lab_site::{FIRST_ID, LabSite, PROFILE};

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_is_gone_for_a_tiny_guest_that_is_connected() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let again = r#"
[[provision]]
name = "ask again"
become = true
shell = [
  '''url=$(sed -n 's/.*s=\(http[^;]*\).*/\1/p' /sys/class/dmi/id/product_serial)''',
  '''[ -n "$url" ]''',
  '''for name in user-data meta-data; do timeout 20 wget -q -O- "$url$name" && echo "$name is served"; echo "asked for $name"; done''',
]
"#;
    site.write("tiny.toml", &format!("{PROFILE}{again}"));
    let done = site.run(&["build", "tiny.toml", "--json"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("asked for meta-data"), "{}", done.stdout);
    assert!(!done.stdout.contains("is served"), "{}", done.stdout);
    let envelopes: Vec<Envelope> = done.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for name in ["user-data", "meta-data"] {
        let statuses: Vec<u16> = envelopes
            .iter()
            .filter_map(|envelope| match &envelope.event {
                Event::Fetched { path, status, .. } if path == name => Some(*status),
                _ => None,
            })
            .collect();
        assert!(statuses.first() == Some(&200) && statuses.last() == Some(&410), "{name}: {statuses:?}");
    }
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_of_a_network_that_is_not_allowed_gets_no_seed_and_is_named() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let allowed = "address = \"10.0.2.2\", allowed-networks = [\"198.51.100.0/24\"]";
    site.write("forge.toml", &site.forge_toml().replace("address = \"10.0.2.2\"", allowed));
    site.write("tiny.toml", &PROFILE.replace("connect = \"15m\"", "connect = \"40s\""));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for words in [
        "error in stage connect",
        "no seed file fetched yet",
        "127.0.0.1 asked for the seed and is in none of `seed.allowed-networks`",
    ] {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    assert!(!done.stderr.contains("the guest never asked"), "it did:\n{}", done.stderr);
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}
