//! The ways to a target and to its guests that others have set up: proxies, authorities, addresses.

use std::net::{IpAddr, SocketAddr};

use forge_lab::ConnectProxy;

use crate::support::lab_site::{BOOT_VM, FIRST_ID, LabSite, PROFILE};

/// A name that nobody on this machine can resolve: who gets there went by the proxy.
const ELSEWHERE: &str = "https://pve1.nowhere.example:8006";

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_is_built_by_the_proxy_of_the_environment_alone() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let proxy = ConnectProxy::to(Some(site.lab.address())).await?;
    site.write("forge.toml", &site.forge_toml().replace(&site.lab.url(), ELSEWHERE));
    let address = format!("http://{}", proxy.address);
    for no_proxy in [("NO_PROXY", "pve1.nowhere.example"), ("NO_PROXY", ".nowhere.example")] {
        let past =
            site.start_with(&["plan", "tiny.toml"], &[("HTTPS_PROXY", &address), no_proxy]).ended().await;
        assert_eq!(past.code, Some(3), "{no_proxy:?}: {}{}", past.stdout, past.stderr);
        assert!(past.stderr.contains("pve1.nowhere.example"), "{}", past.stderr);
    }
    assert_eq!(proxy.requests(), Vec::<String>::new(), "nobody was to ask it");
    assert!(site.lab.requests().is_empty());
    let done = site.start_with(&["build", "tiny.toml"], &[("HTTPS_PROXY", &address)]).ended().await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    site.assert_template_only(FIRST_ID);
    let seen = proxy.requests();
    assert!(!seen.is_empty() && site.lab.requests().len() > 20, "{seen:?}");
    for head in &seen {
        assert!(head.starts_with("CONNECT pve1.nowhere.example:8006 HTTP/1.1\r\n"), "{head}");
        assert!(!head.contains(&site.secret), "{head}");
    }
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_believed_by_an_authority_of_the_system_or_of_the_site_file() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let pinned = site.forge_toml();
    let line = pinned.lines().find(|line| line.starts_with("tls = ")).expect("it is pinned").to_owned();
    std::fs::write(site.path().join("cluster-ca.pem"), site.lab.ca_pem())?;
    let authority = site.path().join("cluster-ca.pem").display().to_string();
    let plan = async |tls: &str, environment: &[(&str, &str)]| {
        site.write("forge.toml", &pinned.replace(&line, tls));
        site.start_with(&["plan", "tiny.toml"], environment).ended().await
    };
    for (tls, environment) in [
        ("", vec![("SSL_CERT_FILE", authority.as_str())]),
        ("tls = { ca-file = \"cluster-ca.pem\" }", Vec::new()),
        (format!("tls = {{ ca-file = \"{authority}\" }}").as_str(), Vec::new()),
    ] {
        let done = plan(tls, &environment).await;
        assert_eq!(done.code, Some(0), "`{tls}` {environment:?}: {}{}", done.stdout, done.stderr);
        assert!(done.stdout.contains("build VM"), "{}", done.stdout);
    }
    // Another authority vouches for nothing here: the token is not shown to such a server.
    let other = LabSite::in_name_only().await?;
    std::fs::write(site.path().join("cluster-ca.pem"), other.lab.ca_pem())?;
    let asked = site.lab.requests().len();
    for (tls, environment) in [
        ("", vec![("SSL_CERT_FILE", authority.as_str())]),
        ("tls = { ca-file = \"cluster-ca.pem\" }", Vec::new()),
    ] {
        let done = plan(tls, &environment).await;
        assert_eq!(done.code, Some(3), "`{tls}`: {}{}", done.stdout, done.stderr);
        assert!(done.stderr.contains(site.lab.fingerprint()), "{}", done.stderr);
    }
    assert_eq!(site.lab.requests().len(), asked, "nothing was asked");
    site.close().await;
    other.close().await;
    Ok(())
}

/// Where the lab's first build VM will be; `None`, with the reason printed, where guests have no addresses of their own.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn next_address(site: &LabSite) -> Option<IpAddr> {
    let boot_vm = site.lab.ssh_address(BOOT_VM).expect("it is there");
    let SocketAddr::V4(address) = boot_vm else { panic!("{boot_vm}") };
    let [a, b, c, slot] = address.ip().octets();
    if address.port() != 22 {
        eprintln!("skipped: the guests of this machine share an address: {boot_vm}");
        return None;
    }
    Some(IpAddr::from([a, b, c, slot + 1]))
}

/// Builds without the agent; nobody but the profile tells where the guest is.
async fn is_found(profile: &str, words: &str) -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let Some(address) = next_address(&site) else { return Ok(()) };
    let without = PROFILE.replace("[deadlines]", "[vm]\nagent = false\n\n[deadlines]");
    site.write("tiny.toml", &format!("{without}\n{}", profile.replace("ADDRESS", &address.to_string())));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert_eq!(site.lab.ssh_address(FIRST_ID).map(|at| at.ip()), Some(address));
    assert!(done.stderr.contains(&format!("forge@{address}")), "{}", done.stderr);
    assert!(done.stderr.contains(words), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_that_nobody_else_tells_of_is_found_at_the_static_address_of_its_profile()
-> anyhow::Result<()> {
    is_found("[seed.vars]\naddress = \"ADDRESS/24\"\ninterface = \"eth0\"\n", "is given to it by its seed")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_that_nobody_else_tells_of_is_found_at_the_host_that_the_profile_names()
-> anyhow::Result<()> {
    is_found("[access]\nhost = \"ADDRESS\"\n", "by the profile").await
}
