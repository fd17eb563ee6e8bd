//! Every reading route answers, in both releases, and what it answers keeps to Proxmox's schema: the lab turns what does
//! not into an error.

use forge_lab::{ImportVm, Lab, LabConfig, PveVersion, StorageConfig};

use super::client::Client;

const PATHS: &[&str] = &[
    "/access",
    "/access/acl",
    "/access/domains",
    "/access/groups",
    "/access/groups/builders",
    "/access/permissions",
    "/access/roles",
    "/access/roles/Administrator",
    "/access/users",
    "/access/users?full=1",
    "/access/users/full@pve",
    "/access/users/full@pve/token",
    "/access/users/full@pve/token/t1",
    "/cluster",
    "/cluster/nextid",
    "/cluster/options",
    "/cluster/resources",
    "/cluster/status",
    "/cluster/tasks",
    "/nodes",
    "/nodes/pve1",
    "/nodes/pve1/capabilities",
    "/nodes/pve1/capabilities/qemu",
    "/nodes/pve1/capabilities/qemu/cpu",
    "/nodes/pve1/capabilities/qemu/machines",
    "/nodes/pve1/network",
    "/nodes/pve1/network/vmbr0",
    "/nodes/pve1/qemu",
    "/nodes/pve1/qemu/100/cloudinit",
    "/nodes/pve1/qemu/100/cloudinit/dump?type=user",
    "/nodes/pve1/qemu/100/config",
    "/nodes/pve1/qemu/100/pending",
    "/nodes/pve1/qemu/100/status/current",
    "/nodes/pve1/status",
    "/nodes/pve1/storage",
    "/nodes/pve1/storage/local",
    "/nodes/pve1/storage/local/content",
    "/nodes/pve1/storage/local/prunebackups",
    "/nodes/pve1/storage/local/status",
    "/nodes/pve1/tasks",
    "/nodes/pve1/time",
    "/nodes/pve1/version",
    "/nodes/localhost/version",
    "/pools",
    "/pools?poolid=forge",
    "/pools/forge",
    "/storage",
    "/storage/local",
    "/version",
];

#[tokio::test]
async fn every_reading_route_keeps_to_the_schema_of_its_release() -> anyhow::Result<()> {
    for version in [PveVersion::V8, PveVersion::V9] {
        let lab = Lab::start(LabConfig {
            version,
            run_guests: false,
            nodes: vec!["pve1".to_owned(), "pve2".to_owned()],
            storages: vec![
                StorageConfig::everything("local"),
                StorageConfig::of("nfs", &["images"]).shared().with_size(1 << 30),
            ],
            ..LabConfig::default()
        })
        .await?;
        let secret = lab.add_full_token("full@pve!t1");
        let client = Client::new(&lab, "full@pve!t1", &secret)?;
        lab.import_vm(ImportVm { vmid: 100, cloudinit_drive: true, ..ImportVm::default() }).await?;
        for (path, form) in [
            ("/access/groups", "groupid=builders&comment=x"),
            ("/pools", "poolid=forge&comment=x"),
            ("/nodes/pve1/qemu", "vmid=101&name=a&pool=forge&tags=a;b&serial0=socket&lock=backup"),
            ("/nodes/pve1/qemu", "vmid=102&name=b&pool=forge&tags=b"),
        ] {
            let reply = client.call("POST", path, form).await?;
            // Only root may set a lock: this one is refused, and the others are made.
            assert!(reply.status == 200 || form.contains("lock="), "{path} {form}: {reply:?}");
        }
        let range = client.call("PUT", "/cluster/options", "next-id=lower%3D200%2Cupper%3D300").await?;
        assert_eq!(range.status, 200, "{range:?}");
        assert_eq!(client.get("/cluster/nextid").await?.data(), "200");
        let start = client.call("POST", "/nodes/pve1/qemu/100/status/start", "").await?;
        let upid = start.data().as_str().unwrap_or_default().to_owned();
        assert_eq!(client.task(&start).await?.0, "OK");
        let mut wrong = Vec::new();
        let tasks = [
            format!("/nodes/pve1/tasks/{upid}"),
            format!("/nodes/pve1/tasks/{upid}/log"),
            format!("/nodes/pve1/tasks/{upid}/status"),
        ];
        for path in PATHS.iter().map(|path| (*path).to_owned()).chain(tasks) {
            let reply = client.get(&path).await?;
            if reply.status != 200 {
                wrong.push(format!("{version:?} {path}: {} {}", reply.line(), reply.body));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        lab.stop().await;
    }
    Ok(())
}
