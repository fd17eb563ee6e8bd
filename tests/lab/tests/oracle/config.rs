//! Creating and configuring (create-2.txt, config-power.txt, clone-template-delete.txt).

use forge_lab::{ImportVm, LabConfig, StorageConfig};
use serde_json::{Value, json};

use super::{fast_lab, lab_with};

const CREATE: &str = "vmid=9000&name=forge-build&memory=256&cores=1&sockets=1&kvm=0&ostype=l26&scsihw=virtio-scsi-single&scsi0=local%3A1%2Cformat%3Dqcow2%2Cdiscard%3Don%2Cssd%3D1%2Ciothread%3D1&net0=virtio%2Cbridge%3Dvmbr0%2Cfirewall%3D0&agent=enabled%3D1&boot=order%3Dscsi0%3Bnet0&serial0=socket&tags=Forge%3Bbuild-2026&description=line+one%0Aline+two%3A+%C3%BCn%C3%AF+%26+%3D&tablet=0&vga=std&rng0=source%3D%2Fdev%2Furandom";

#[tokio::test]
async fn a_created_vm_has_the_configuration_of_a_real_one() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let reply = client.call("POST", "/nodes/pve/qemu", CREATE).await?;
    let (exit, log) = client.task(&reply).await?;
    assert_eq!(exit, "OK");
    assert!(log.iter().any(|line| line == "scsi0: successfully created disk 'local:9000/vm-9000-disk-0.qcow2,discard=on,iothread=1,size=1G,ssd=1'"), "{log:?}");
    let upid = reply.data().as_str().unwrap_or_default().to_owned();
    assert!(
        upid.starts_with("UPID:pve:") && upid.ends_with(":qmcreate:9000:automation@pve!forge:"),
        "{upid}"
    );

    let config = client.get("/nodes/pve/qemu/9000/config").await?.data();
    let expected = json!({"agent": "enabled=1", "serial0": "socket", "scsihw": "virtio-scsi-single", "vga": "std",
        "rng0": "source=/dev/urandom", "tags": "build-2026;forge", "tablet": 0, "name": "forge-build", "sockets": 1,
        "scsi0": "local:9000/vm-9000-disk-0.qcow2,discard=on,iothread=1,size=1G,ssd=1", "memory": "256",
        "ostype": "l26", "description": "line one\nline two: ünï & =", "kvm": 0, "cores": 1, "boot": "order=scsi0;net0"});
    for (key, value) in expected.as_object().into_iter().flatten() {
        assert_eq!(config[key], *value, "{key}");
    }
    let net = config["net0"].as_str().unwrap_or_default();
    assert!(net.starts_with("virtio=BC:24:11:") && net.ends_with(",bridge=vmbr0,firewall=0"), "{net}");
    for key in ["vmgenid", "smbios1", "meta", "digest"] {
        assert!(config[key].is_string(), "{key}");
    }

    let cases = [
        (CREATE, "500 unable to create VM 9000 - VM 9000 already exists on node 'pve'"),
        ("vmid=9001&rng0=source%3D%2Fdev%2Fhwrng&args=-foo", "500 only root can set 'args' config"),
        ("vmid=9001&scsi0=nosuch:1", "500 storage 'nosuch' does not exist"),
        ("vmid=9001&scsi0=local:1G", "500 unable to parse directory volume name '1G'"),
        (
            "vmid=9003&ide2=local:iso/nosuch.iso,media=cdrom",
            "unable to create VM 9003 - volume 'local:iso/nosuch.iso' does not exist",
        ),
        ("{\"vmid\": 9006, \"name\": \"j\", \"memory\": 256, \"scsi0\": \"local:1,format=qcow2\"}", "OK"),
    ];
    for (form, outcome) in cases {
        assert_eq!(client.done("POST", "/nodes/pve/qemu", form).await?, outcome, "{form}");
    }
    assert_eq!(
        client.get("/nodes/pve/qemu/9003/config").await?.status,
        500,
        "a failed create leaves nothing"
    );
    assert_eq!(
        client.get("/cluster/nextid?vmid=9000").await?.json()["errors"]["vmid"],
        "VM 9000 already exists"
    );
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn updates_wait_for_the_next_start_while_the_vm_runs() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let vm = "/nodes/pve/qemu/9000";
    let config = format!("{vm}/config");
    assert_eq!(client.done("POST", "/nodes/pve/qemu", CREATE).await?, "OK");
    assert_eq!(client.done("POST", &format!("{vm}/status/start"), "").await?, "OK");
    assert_eq!(client.done("POST", &format!("{vm}/status/start"), "").await?, "VM 9000 already running");
    assert_eq!(client.call("PUT", &config, "description=new").await?.status, 200);
    assert_eq!(client.call("PUT", &config, "memory=512").await?.status, 200);
    let view = client.get(&config).await?.data();
    let current = client.get(&format!("{config}?current=1")).await?.data();
    assert_eq!(
        (&view["memory"], &current["memory"], &current["description"]),
        (&json!("512"), &json!("256"), &json!("new"))
    );
    let pending = client.get(&format!("{vm}/pending")).await?.data();
    let memory = pending.as_array().into_iter().flatten().find(|entry| entry["key"] == "memory").cloned();
    assert_eq!(memory, Some(json!({"key": "memory", "value": "256", "pending": "512"})));
    assert_eq!(client.call("PUT", &config, "revert=memory").await?.status, 200);
    assert_eq!(client.get(&config).await?.data()["memory"], "256");
    assert_eq!(client.done("POST", &config, "memory=1024").await?, "OK");
    assert_eq!(client.done("POST", &format!("{vm}/status/stop"), "").await?, "OK");
    assert_eq!(client.get(&format!("{config}?current=1")).await?.data()["memory"], "1024");

    let zeros = "0".repeat(40);
    let cases = [
        (
            format!("description=z&digest={zeros}"),
            "500 checksum mismatch (file change by other user?)",
            Value::Null,
        ),
        (String::new(), "500 no options specified", Value::Null),
        (
            "description=z&delete=description".to_owned(),
            "400 Parameter verification failed.",
            json!({"delete": "you can't use '-description' and -delete description' at the same time"}),
        ),
        (
            "delete=nosuchkey".to_owned(),
            "400 Parameter verification failed.",
            json!({"delete": "unknown option 'nosuchkey'"}),
        ),
        ("delete=ide3".to_owned(), "200 OK", Value::Null),
        (
            "serial0=%2Fdev%2FttyS0".to_owned(),
            "500 only root can modify 'serial0' config for real devices",
            Value::Null,
        ),
        (
            "sshkeys=ssh-ed25519+AAAA+not-encoded".to_owned(),
            "400 Parameter verification failed.",
            json!({"sshkeys": "invalid format - invalid urlencoded string: ssh-ed25519 AAAA not-encoded\n"}),
        ),
        (
            "sshkeys=ssh-ed25519%2520AAAAC3NzaC1lZDI1NTE5AAAAIJ%2520forge%2540x%250A".to_owned(),
            "500 SSH public key validation error",
            Value::Null,
        ),
        (
            "boot=order%3Dscsi5".to_owned(),
            "500 invalid bootorder: device 'scsi5' does not exist'",
            Value::Null,
        ),
    ];
    for (form, line, errors) in cases {
        let reply = client.call("PUT", &config, &form).await?;
        assert_eq!((reply.line().as_str(), reply.json()["errors"].clone()), (line, errors), "{form}");
    }
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn there_is_one_cloud_init_drive_and_its_password_is_masked() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    let config = "/nodes/pve/qemu/9000/config";
    let form = "ide3=local%3Acloudinit&ciuser=forge&cipassword=secret&sshkeys=ssh-ed25519%2520AAAAC3NzaC1lZDI1NTE5AAAAIBs%252FpKYCXUa1NsAQUngaX6ppcDn49GIeAAm%252FmrcaOcUQ%2520root%2540vm%250A&ipconfig0=ip%3Ddhcp&citype=nocloud";
    assert_eq!(client.call("PUT", config, form).await?.line(), "200 OK");
    let data = client.get(config).await?.data();
    assert_eq!(data["ide3"], "local:9000/vm-9000-cloudinit.qcow2,media=cdrom");
    assert_eq!(data["cipassword"], "**********");
    assert_eq!(
        data["sshkeys"],
        "ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5AAAAIBs%2FpKYCXUa1NsAQUngaX6ppcDn49GIeAAm%2FmrcaOcUQ%20root%40vm%0A"
    );
    let user = client.get("/nodes/pve/qemu/9000/cloudinit/dump?type=user").await?.data();
    assert!(
        user.as_str().unwrap_or_default().contains(
            "  - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBs/pKYCXUa1NsAQUngaX6ppcDn49GIeAAm/mrcaOcUQ root@vm\n"
        ),
        "{user}"
    );
    let second = client.call("PUT", config, "ide0=local%3Acloudinit").await?;
    assert_eq!(second.line(), "500 ide0 - cloud-init drive is already attached at 'ide3'");
    assert_eq!(
        client.done("POST", config, "ide0=local%3Acloudinit").await?,
        "ide0 - cloud-init drive is already attached at 'ide3'"
    );
    assert_eq!(client.call("PUT", config, "delete=ide3").await?.status, 200);
    assert!(
        lab.image_files().iter().all(|path| !path.to_string_lossy().contains("cloudinit")),
        "removed at once"
    );
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn several_nodes_share_one_cluster_and_a_storage_says_what_it_takes() -> anyhow::Result<()> {
    let config = LabConfig {
        run_guests: false,
        nodes: vec!["pve1".to_owned(), "pve2".to_owned()],
        storages: vec![StorageConfig::of("isos", &["iso"]), StorageConfig::everything("local")],
        ..LabConfig::default()
    };
    let (lab, client) = lab_with(config).await?;
    assert_eq!(client.get("/nodes").await?.data().as_array().map(Vec::len), Some(2));
    assert_eq!(client.done("POST", "/nodes/pve2/qemu", "vmid=100&scsi0=local:1").await?, "OK");
    assert_eq!(
        client.done("POST", "/nodes/pve1/qemu", "vmid=100").await?,
        "500 unable to create VM 100 - VM 100 already exists on node 'pve2'"
    );
    assert_eq!(
        client.done("POST", "/nodes/pve1/qemu", "vmid=101&scsi0=isos:1").await?,
        "500 storage 'isos' does not support vm images"
    );
    assert_eq!(
        client.get("/nodes/pve1/qemu/100/config").await?.line(),
        "500 Configuration file 'nodes/pve1/qemu-server/100.conf' does not exist"
    );
    let resources = client.get("/cluster/resources?type=vm").await?.data();
    assert_eq!((&resources[0]["node"], &resources[0]["vmid"]), (&json!("pve2"), &json!(100)));
    let isos = client.get("/nodes/pve1/storage?content=iso&enabled=1").await?.data();
    assert_eq!(isos.as_array().map(Vec::len), Some(2));
    lab.stop().await;
    Ok(())
}
