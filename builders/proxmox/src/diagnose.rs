//! A look at the whole target, for `forge doctor`: from the connection to the last storage. Reads only.

use std::collections::BTreeSet;

use forge_machine::{Checkup, Diagnosis, StorageFacts, TAG_DEPRECATED, TAG_LATEST, TAG_OWN, TAGS_OF_TRIALS};
use jiff::{SignedDuration, Timestamp};

use crate::api::client::Client;
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;
use crate::api::types::{NodeEntry, PermissionMap, ResourceEntry, TokenEntry, Version};
use crate::config::{ProxmoxConfig, TlsChoice};
use crate::discovery::{bridges, did_you_mean, storages};
use crate::params::{TAG_BUILD, TAG_KEPT};
use crate::permissions::Grants;
use crate::sdn::zones;
use crate::tags::kept_from;

/// A clock that is wrong by more than this makes certificates and tickets look too new or too old.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(60);
/// A storage with less is too full for a template of today's systems.
const SPACE_TO_WARN: u64 = 20 << 30;
const SPACE_TO_FAIL: u64 = 2 << 30;
/// A token that ends sooner is told.
const TOKEN_TO_WARN: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Looks at the target. What can't be looked at any more, because something before it fails, is left out.
pub(crate) async fn diagnose(client: &Client, config: &ProxmoxConfig, checkup: &Checkup) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    let version = match connection(client, config, &mut found).await {
        Some(version) => version,
        None => return found,
    };
    others(config, &mut found).await;
    found.push(clock(client.clock_ahead()));
    found.push(token(client).await);
    let nodes = match nodes(client, config, &mut found).await {
        Ok(nodes) => nodes,
        Err(error) => {
            found.push(refused("nodes", &error));
            return found;
        }
    };
    match client.get::<PermissionMap>("/access/permissions", &Params::new()).await {
        Ok(map) => {
            let token_id = client.login_id().to_owned();
            let grants = Grants {
                token_id,
                role: client.role().to_owned(),
                major: version.major(),
                map,
                pool: checkup.pool.clone(),
                zones: zones(client).await,
            };
            found.extend(grants.examine(checkup, &nodes));
        }
        Err(error) => found.push(refused("privileges", &error)),
    }
    found.extend(of_tags(client).await);
    // What one node lacks weighs less when another has it, so all are asked first.
    let (mut all_storages, mut all_bridges) = (Vec::new(), Vec::new());
    for node in &nodes {
        match storages(client, node).await {
            Ok(known) => all_storages.push((node.as_str(), known)),
            Err(error) => found.push(refused(&format!("storages of {node}"), &error)),
        }
        if let Some(bridge) = &checkup.bridge {
            match bridges(client, node).await {
                Ok(known) => all_bridges.push((node.as_str(), known)),
                Err(error) => found.push(refused(&format!("bridge {bridge} of {node}"), &error)),
            }
        }
    }
    found.extend(on_storages(checkup, &all_storages));
    found.extend(checkup.bridge.iter().flat_map(|bridge| on_bridges(bridge, &all_bridges)));
    found.push(ids(client, checkup).await);
    found
}

/// Connection, certificate and login of the endpoint that is used, by one harmless question.
async fn connection(client: &Client, config: &ProxmoxConfig, found: &mut Vec<Diagnosis>) -> Option<Version> {
    let answer: Result<Version, ApiError> = client.get("/version", &Params::new()).await;
    let reached = Diagnosis::pass("connection", format!("{} answers", client.endpoint()));
    let trusted = || certificate(config);
    match answer {
        Ok(version) => {
            found.extend([reached, trusted()]);
            found.push(Diagnosis::pass(
                "login",
                format!("{} is known to Proxmox VE {}", client.login_id(), version.version),
            ));
            if version.major() < 7 {
                let words = format!("Proxmox VE {} was never tried", version.version);
                found.push(Diagnosis::warn("release", words, "forge is tried with Proxmox VE 8 and 9"));
            }
            Some(version)
        }
        Err(error) => {
            let words = words_of(&error);
            match &error {
                ApiError::Untrusted { .. } => {
                    let help = "compare the fingerprint with the one that `pvenode cert info` shows on the node, and \
                                write it into the target: tls = { fingerprint = \"…\" }";
                    found.extend([reached, Diagnosis::fail("certificate", words, help)]);
                }
                ApiError::Unauthorized { .. } => {
                    let help = "compare user, token and secret with `pveum user token list USER` on a node; a secret is \
                                shown once only, so make a new token if it is lost";
                    found.extend([reached, trusted(), Diagnosis::fail("login", words, help)]);
                }
                _ => found.push(Diagnosis::fail(
                    "connection",
                    words,
                    "is the address right, and does a firewall let this machine reach its port 8006?",
                )),
            }
            None
        }
    }
}

fn certificate(config: &ProxmoxConfig) -> Diagnosis {
    let check = "certificate";
    match &config.tls {
        TlsChoice::Fingerprint(_) | TlsChoice::Fingerprints(_) => {
            Diagnosis::pass(check, "it is the pinned one")
        }
        TlsChoice::CaFile(file) => Diagnosis::pass(check, format!("vouched for by {}", file.display())),
        TlsChoice::System => Diagnosis::pass(check, "vouched for by the roots of this machine"),
        TlsChoice::Insecure => Diagnosis::warn(
            check,
            "any is taken: whoever is on the way can read the token",
            "tls = { fingerprint = \"…\" } in the target, as `pvenode cert info` shows it on the node",
        ),
    }
}

/// The endpoints that are not used now, each by itself.
async fn others(config: &ProxmoxConfig, found: &mut Vec<Diagnosis>) {
    for url in &config.more_urls {
        let alone = ProxmoxConfig { url: url.clone(), more_urls: Vec::new(), ..config.clone() };
        let check = format!("endpoint {url}");
        let client = match Client::new(&alone) {
            Ok(client) => client,
            Err(error) => {
                found.push(Diagnosis::fail(check, error.to_string(), "correct `url` of the target"));
                continue;
            }
        };
        found.push(match client.get::<Version>("/version", &Params::new()).await {
            Ok(_) => Diagnosis::pass(check, "it answers, and knows the login"),
            Err(error) => Diagnosis::warn(
                check,
                words_of(&error),
                "builds go on with the other endpoints as long as these answer",
            ),
        });
    }
}

fn clock(ahead: Option<SignedDuration>) -> Diagnosis {
    let check = "clock";
    let Some(ahead) = ahead else { return Diagnosis::pass(check, "the server does not tell the time") };
    let seconds = ahead.as_secs();
    if ahead.abs() <= CLOCK_TOLERANCE {
        return Diagnosis::pass(check, "the node and this machine agree to within a minute");
    }
    let which = if seconds > 0 { "ahead of" } else { "behind" };
    Diagnosis::warn(
        check,
        format!("the node's clock is {} s {which} this machine's", seconds.abs()),
        "set both by NTP (`timedatectl` shows whether they are): certificates and logins depend on the time",
    )
}

/// How long the token is good for: it is asked about itself where its user lets it.
async fn token(client: &Client) -> Diagnosis {
    let check = "token";
    let Some((user, token)) = client.login_id().split_once('!') else {
        return Diagnosis::pass(check, "a user logs in by password, and the ticket is renewed every hour");
    };
    let of_token = path(&["access", "users", user, "token", token]);
    match client.get::<TokenEntry>(&of_token, &Params::new()).await {
        Ok(entry) => ends(user, token, entry.expire, Timestamp::now()),
        // A token with privileges of its own may not read its user's entry.
        Err(ApiError::Denied { .. }) => {
            Diagnosis::pass(check, "it is good; when it ends it may not see itself")
        }
        Err(error) => Diagnosis::pass(check, format!("it is good ({})", words_of(&error))),
    }
}

/// How long a token is good for that ends at this second; 0 is never.
fn ends(user: &str, token: &str, expire: u64, now: Timestamp) -> Diagnosis {
    let check = "token";
    if expire == 0 {
        return Diagnosis::pass(check, "it is good, and never ends");
    }
    let end = i64::try_from(expire).ok().and_then(|end| Timestamp::from_second(end).ok());
    let Some(end) = end else { return Diagnosis::pass(check, "it is good") };
    let words = format!("it ends on {}", end.strftime("%Y-%m-%d %H:%M UTC"));
    if end.duration_since(now) >= TOKEN_TO_WARN {
        return Diagnosis::pass(check, words);
    }
    let help = format!("as root on a node: pveum user token modify '{user}' '{token}' --expire 0");
    Diagnosis::warn(check, words, help)
}

/// The nodes that builds may use; what is wrong with the others is found.
async fn nodes(
    client: &Client,
    config: &ProxmoxConfig,
    found: &mut Vec<Diagnosis>,
) -> Result<Vec<String>, ApiError> {
    let all: Vec<NodeEntry> = client.get("/nodes", &Params::new()).await?;
    let names: Vec<&str> = all.iter().map(|entry| entry.node.as_str()).collect();
    for wanted in config.nodes.iter().filter(|wanted| !names.contains(&wanted.as_str())) {
        let words = format!("there is no node `{wanted}`");
        found.push(Diagnosis::fail("nodes", words, did_you_mean(wanted, &names, "nodes")));
    }
    let meant = |entry: &&NodeEntry| config.nodes.is_empty() || config.nodes.contains(&entry.node);
    let (off, on): (Vec<_>, Vec<_>) = all.iter().filter(meant).partition(|entry| entry.status == "offline");
    for entry in off {
        let words = format!("{} is offline", entry.node);
        found.push(Diagnosis::warn(
            "nodes",
            words,
            "builds go to the others, and find nothing that is there",
        ));
    }
    let mut on: Vec<String> = on.into_iter().map(|entry| entry.node.clone()).collect();
    on.sort();
    found.push(match on.is_empty() {
        true => Diagnosis::fail("nodes", "no node is online", "look at the cluster with `pvecm status`"),
        false => Diagnosis::pass("nodes", on.join(", ")),
    });
    Ok(on)
}

/// The tags that forge sets, against the cluster's policy. Builds can't do without their own; the others have their commands.
async fn of_tags(client: &Client) -> Vec<Diagnosis> {
    let check = "tags";
    let (mut found, mut all) = (Vec::new(), 0_usize);
    for (tags, purpose) in [
        (&[TAG_BUILD, TAG_KEPT, TAG_OWN, TAG_LATEST][..], None),
        (&TAGS_OF_TRIALS, Some("without it no template is tried: `forge build --no-test`")),
        (&[TAG_DEPRECATED], Some("without it `forge prune --deprecate` has no mark to put")),
    ] {
        all += tags.len();
        match kept_from(client, tags).await {
            Ok(kept) => found.extend(kept.into_iter().map(|(why, help)| match purpose {
                None => Diagnosis::fail(check, why, help),
                Some(purpose) => Diagnosis::warn(check, format!("{why}; {purpose}"), help),
            })),
            Err(error) => found.push(refused(check, &error)),
        }
    }
    if found.is_empty() {
        found.push(Diagnosis::pass(
            check,
            format!("the {all} that forge sets are kept by no policy that shows"),
        ));
    }
    found
}

fn on_storages(checkup: &Checkup, nodes: &[(&str, Vec<StorageFacts>)]) -> Vec<Diagnosis> {
    let disks: BTreeSet<&String> = checkup.disk_storages.iter().collect();
    let mut wanted: Vec<(&String, &str)> = disks.into_iter().map(|name| (name, "images")).collect();
    wanted.extend(checkup.iso_storage.iter().map(|name| (name, "iso")));
    wanted.extend(checkup.archive_storage.iter().map(|name| (name, "backup")));
    let mut found = Vec::new();
    for (node, known) in nodes {
        for (name, content) in &wanted {
            let having = |(other, known): &&(&str, Vec<StorageFacts>)| {
                other != node && known.iter().any(|each| each.name == **name)
            };
            let elsewhere: Vec<&str> = nodes.iter().filter(having).map(|(other, _)| *other).collect();
            let one = on_storage(name, content, node, known, &elsewhere);
            // Archives are the affair of `forge prune` alone.
            found.push(if *content == "backup" { one.no_worse_than_a_warning() } else { one });
        }
    }
    found
}

/// `elsewhere` are the other nodes of the target that have it.
fn on_storage(
    name: &str,
    content: &str,
    node: &str,
    known: &[StorageFacts],
    elsewhere: &[&str],
) -> Diagnosis {
    let what = match content {
        "iso" => "media",
        "backup" => "archives",
        _ => "disks",
    };
    let check = format!("storage {name} of {node} for {what}");
    let Some(storage) = known.iter().find(|each| each.name == name) else {
        if !elsewhere.is_empty() {
            let words =
                format!("{node} has no storage `{name}` that the token sees; {} does", elsewhere.join(", "));
            let help = format!(
                "builds go to a node that has it; to have it on {node} too, as root: pvesm set {name} --nodes {node},{}",
                elsewhere.join(",")
            );
            return Diagnosis::warn(check, words, help);
        }
        let names: Vec<&str> = known.iter().map(|each| each.name.as_str()).collect();
        let words = format!("there is no storage `{name}` that the token sees");
        return Diagnosis::fail(check, words, did_you_mean(name, &names, "storages"));
    };
    if !storage.active {
        let help = "look at `pvesm status` on the node; a network storage may be out of reach";
        return Diagnosis::fail(check, "it is not active", help);
    }
    if !storage.content.iter().any(|each| each == content) {
        let all = storage.content.join(",");
        let help = format!("as root on a node: pvesm set {name} --content {all},{content}");
        let words = format!("it does not take {what} (its content: {})", storage.content.join(", "));
        // Clones need no media.
        return match content {
            "iso" => Diagnosis::warn(check, words, help),
            _ => Diagnosis::fail(check, words, help),
        };
    }
    let free = storage.available;
    let words = format!("{:.1} GiB are free", free as f64 / f64::from(1 << 30));
    match free {
        _ if free < SPACE_TO_FAIL && content == "images" => {
            Diagnosis::fail(check, words, "remove what is not needed: `forge prune` removes old templates")
        }
        _ if free < SPACE_TO_WARN => {
            Diagnosis::warn(check, words, "remove what is not needed: `forge prune` removes old templates")
        }
        _ => Diagnosis::pass(check, words),
    }
}

fn on_bridges(bridge: &str, nodes: &[(&str, Option<Vec<String>>)]) -> Vec<Diagnosis> {
    let has = |known: &Option<Vec<String>>| known.iter().flatten().any(|each| each == bridge);
    let on = |(node, known): &(&str, Option<Vec<String>>)| {
        let others = nodes.iter().filter(|(other, known)| other != node && has(known));
        let elsewhere: Vec<&str> = others.map(|(other, _)| *other).collect();
        on_bridge(bridge, node, known.as_deref(), &elsewhere)
    };
    nodes.iter().map(on).collect()
}

/// `elsewhere` are the other nodes of the target that have it.
fn on_bridge(bridge: &str, node: &str, known: Option<&[String]>, elsewhere: &[&str]) -> Diagnosis {
    let check = format!("bridge {bridge} of {node}");
    match known {
        None => Diagnosis::warn(
            check,
            "the token may not see the bridges of the node, so nobody can tell whether it is there",
            "SDN.Use on it shows it; or look at `ip link` on the node",
        ),
        Some(known) if known.iter().any(|each| each == bridge) => Diagnosis::pass(check, "it is there"),
        Some(_) if !elsewhere.is_empty() => {
            let words = format!("{node} has no bridge `{bridge}`; {} does", elsewhere.join(", "));
            let help = format!(
                "a build that goes to {node} is refused: make the bridge there, or leave the node out: nodes = [{}]",
                elsewhere.iter().map(|node| format!("\"{node}\"")).collect::<Vec<_>>().join(", ")
            );
            Diagnosis::warn(check, words, help)
        }
        Some(known) => {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let words = format!("there is no bridge `{bridge}`");
            Diagnosis::fail(check, words, did_you_mean(bridge, &names, "bridges"))
        }
    }
}

/// How many ids of the range are left, as far as the token sees what takes them.
async fn ids(client: &Client, checkup: &Checkup) -> Diagnosis {
    let check = "VMIDs";
    let Some((first, last)) = checkup.ids else {
        let help = "vmids = \"9001-9099\" in the target keeps builds and other VMs apart";
        return Diagnosis::warn(check, "no range is named: builds take the lowest that is free", help);
    };
    let query = Params::new().with("type", "vm");
    let entries: Vec<ResourceEntry> = match client.get("/cluster/resources", &query).await {
        Ok(entries) => entries,
        Err(error) => return refused(check, &error),
    };
    let range = u64::from(first)..=u64::from(last);
    let taken: BTreeSet<u64> =
        entries.iter().map(|entry| entry.vmid).filter(|id| range.contains(id)).collect();
    let all = u64::from(last.saturating_sub(first)) + 1;
    let free = all.saturating_sub(u64::try_from(taken.len()).unwrap_or(u64::MAX));
    let words = format!("{free} of the {all} from {first} to {last} are free");
    let help = "`forge prune` removes old templates; `vmids` of the target takes a larger range";
    match free {
        0 => Diagnosis::fail(check, words, help),
        1..3 => Diagnosis::warn(check, words, help),
        _ => Diagnosis::pass(check, words),
    }
}

/// An error with its cause.
fn words_of(error: &ApiError) -> String {
    match error {
        ApiError::Malformed { source, .. } => format!("{error}: {source}"),
        other => other.to_string(),
    }
}

fn refused(check: &str, error: &ApiError) -> Diagnosis {
    Diagnosis::fail(check, words_of(error), "the target answers, and refuses to tell")
}

#[cfg(test)]
mod tests {
    use forge_machine::Health;

    use super::*;

    #[test]
    fn a_clock_that_is_wrong_by_minutes_is_told_with_its_direction() {
        let seen = |seconds| clock(Some(SignedDuration::from_secs(seconds)));
        assert_eq!((seen(59).health, seen(-60).health), (Health::Pass, Health::Pass));
        assert!(seen(61).found.contains("61 s ahead of") && seen(-3600).found.contains("3600 s behind"));
        assert_eq!(clock(None).health, Health::Pass);
    }

    #[test]
    fn a_token_that_ends_soon_is_told_with_the_command_that_lets_it_live() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let in_days = |days: u64| ends("forge@pve", "build", 1_800_000_000 + days * 86_400, now);
        assert_eq!([ends("a", "b", 0, now), in_days(15)].map(|found| found.health), [Health::Pass; 2]);
        let found = in_days(13);
        assert!(found.health == Health::Warn && found.found.contains("it ends on 2027-01-28"), "{found:?}");
        assert!(found.help.contains("pveum user token modify 'forge@pve' 'build' --expire 0"), "{found:?}");
    }

    #[test]
    fn a_storage_is_there_active_takes_what_it_is_for_and_has_room() {
        let storage = |name: &str, content: &[&str], free: u64, active| StorageFacts {
            name: name.into(),
            content: content.iter().map(|each| (*each).to_owned()).collect(),
            available: free,
            active,
        };
        let known = [
            storage("lvm", &["images", "rootdir"], 100 << 30, true),
            storage("full", &["images"], 1 << 30, true),
            storage("tight", &["images"], 10 << 30, true),
            storage("nfs", &["images"], 100 << 30, false),
            storage("backup", &["backup"], 100 << 30, true),
        ];
        for (name, content, health, words) in [
            ("lvm", "images", Health::Pass, "100.0 GiB"),
            ("full", "images", Health::Fail, "1.0 GiB"),
            ("tight", "images", Health::Warn, "10.0 GiB"),
            ("nfs", "images", Health::Fail, "not active"),
            ("backup", "images", Health::Fail, "does not take disks"),
            ("backup", "iso", Health::Warn, "does not take media"),
            ("lmv", "images", Health::Fail, "no storage `lmv`"),
        ] {
            let found = on_storage(name, content, "pve", &known, &[]);
            assert!(found.health == health && found.found.contains(words), "{found:?}");
            assert_eq!(found.help.is_empty(), health == Health::Pass, "{found:?}");
        }
        let found = on_storage("backup", "images", "pve", &known, &[]);
        assert!(found.help.contains("pvesm set backup --content backup,images"), "{found:?}");
    }

    #[test]
    fn a_storage_that_another_node_has_is_a_warning_and_one_that_none_has_fails() {
        let storage = |name: &str| StorageFacts {
            name: name.into(),
            content: vec!["images".into()],
            available: 100 << 30,
            active: true,
        };
        let checkup = Checkup { disk_storages: vec!["lvm".into()], ..Checkup::default() };
        let nodes = [("pve1", vec![storage("lvm")]), ("pve2", vec![storage("zfs")])];
        let found = on_storages(&checkup, &nodes);
        assert_eq!([found[0].health, found[1].health], [Health::Pass, Health::Warn], "{found:?}");
        assert!(
            found[1].found.contains("pve2 has no storage `lvm`") && found[1].found.contains("pve1 does"),
            "{found:?}"
        );
        assert!(found[1].help.ends_with("pvesm set lvm --nodes pve2,pve1"), "{found:?}");
        let nodes = [("pve1", vec![storage("zfs")]), ("pve2", vec![storage("zfs")])];
        let found = on_storages(&checkup, &nodes);
        assert!(found.len() == 2 && found.iter().all(|each| each.health == Health::Fail), "{found:?}");
    }

    #[test]
    fn a_bridge_that_is_not_there_is_told_and_one_that_is_hidden_or_elsewhere_is_a_warning() {
        let known =
            |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>());
        let nodes = [("a", known(&["vmbr0"])), ("b", known(&["vmbr1"])), ("c", None)];
        let healths =
            |bridge: &str| on_bridges(bridge, &nodes).iter().map(|each| each.health).collect::<Vec<_>>();
        assert_eq!(healths("vmbr0"), [Health::Pass, Health::Warn, Health::Warn]);
        assert_eq!(healths("vmbr9"), [Health::Fail, Health::Fail, Health::Warn]);
        let found = on_bridges("vmbr0", &nodes);
        assert!(
            found[1].found == "b has no bridge `vmbr0`; a does" && found[1].help.contains("nodes = [\"a\"]"),
            "{found:?}"
        );
    }
}
