//! Who may set which tag (pve-guest-common `GuestHelpers.pm`; the text of the refusal is its).

use forge_lab::{ImportVm, Lab};
use serde_json::json;

use super::client::Client;
use super::fast_lab;

const CONFIG: &str = "/nodes/pve/qemu/100/config";

/// A client whose token may change VMs, and nothing of the cluster.
fn user(lab: &Lab, client: &Client) -> Client {
    let secret = lab.add_token("user@pve!one", &[("/", &["VM.Audit", "VM.Config.Options"])]);
    Client { token: Some(format!("PVEAPIToken=user@pve!one={secret}")), ..client.clone() }
}

#[tokio::test]
async fn a_tag_is_set_and_taken_off_by_whom_the_policy_lets() -> anyhow::Result<()> {
    let (lab, root) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 100, tags: "web".into(), ..ImportVm::default() }).await?;
    let user = user(&lab, &root);
    let policy = async |form: &str| -> anyhow::Result<()> {
        let reply = root.call("PUT", "/cluster/options", form).await?;
        anyhow::ensure!(reply.status == 200, "{}", reply.line());
        Ok(())
    };
    let set = async |client: &Client, tags: &str| -> anyhow::Result<String> {
        Ok(client.call("PUT", CONFIG, &format!("tags={}", tags.replace(';', "%3B"))).await?.line())
    };
    let refused =
        |tag: &str| format!("403 Permission check failed (/, Sys.Modify for modifying tag '{tag}')");
    assert_eq!(set(&user, "web;new").await?, "200 OK", "without a policy every tag is free");

    policy("registered-tags=golden").await?;
    assert_eq!(set(&user, "web;golden").await?, refused("golden"));
    assert_eq!(set(&root, "web;golden").await?, "200 OK");
    assert_eq!(set(&user, "web").await?, refused("golden"), "taking it off is the same");
    assert_eq!(set(&user, "golden;other;web").await?, "200 OK", "what stays is not asked about");

    policy("user-tag-access=user-allow%3Dexisting&delete=registered-tags").await?;
    assert_eq!(set(&user, "web;unheard-of").await?, refused("unheard-of"));
    assert_eq!(
        user.get("/cluster/options").await?.data(),
        json!({"allowed-tags": ["golden", "other", "web"]})
    );

    policy("user-tag-access=user-allow%3Dlist%2Cuser-allow-list%3Da%3Bb").await?;
    assert_eq!(set(&user, "golden;other;web;a").await?, "200 OK");
    assert_eq!(set(&user, "a").await?.split(" for ").next(), refused("x").split(" for ").next());
    assert_eq!(user.call("PUT", CONFIG, "delete=tags").await?.status, 403);
    let shown = root.get("/cluster/options").await?.data();
    assert_eq!(shown["user-tag-access"], "user-allow=list,user-allow-list=a;b");
    assert_eq!(user.get("/cluster/options").await?.data(), json!({"allowed-tags": ["a", "b"]}));

    policy("user-tag-access=user-allow%3Dnone").await?;
    assert_eq!(set(&user, "golden;other;web").await?, refused("a"));
    assert_eq!(set(&user, "a;golden;other;web").await?, "200 OK", "nothing is changed");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_token_whose_privileges_are_a_pools_makes_vms_without_tags_and_tags_them_afterwards()
-> anyhow::Result<()> {
    let (lab, root) = fast_lab().await?;
    root.call("POST", "/pools", "poolid=forge").await?;
    let secret = lab.add_token(
        "user@pve!pool",
        &[("/pool/forge", &["VM.Allocate", "VM.Audit", "VM.Config.Options", "VM.Config.Disk"])],
    );
    let user = Client { token: Some(format!("PVEAPIToken=user@pve!pool={secret}")), ..root.clone() };
    let made = user.call("POST", "/nodes/pve/qemu", "vmid=101&pool=forge&name=one&tags=web").await?;
    let (exit, _) = user.task(&made).await?;
    assert!(exit.contains("Permission check failed (/vms/101, VM.Config.Options)"), "{exit}");
    assert!(lab.vm(101).is_none());
    let made = user.call("POST", "/nodes/pve/qemu", "vmid=101&pool=forge&name=one").await?;
    assert_eq!(user.task(&made).await?.0, "OK");
    assert_eq!(user.call("PUT", "/nodes/pve/qemu/101/config", "tags=web").await?.line(), "200 OK");
    lab.stop().await;
    Ok(())
}
