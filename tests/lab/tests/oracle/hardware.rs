//! Every form of hardware that the schema takes, created through the API and started in a real QEMU.

use anyhow::{Context as _, ensure};
use forge_lab::{ImportVm, Lab, LabConfig, setup};
use serde_json::json;

use super::client::Client;
use super::{fast_lab, lab_with};

/// Form-encodes pairs.
pub fn form(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| {
        let bytes = text.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        });
        bytes.collect::<String>()
    };
    pairs.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect::<Vec<_>>().join("&")
}

async fn starts(client: &Client, vmid: u32, pairs: &[(&str, &str)]) -> anyhow::Result<()> {
    let id = vmid.to_string();
    let mut all = vec![("vmid", id.as_str()), ("memory", "64"), ("kvm", "0")];
    all.extend(pairs);
    let vm = format!("/nodes/pve/qemu/{vmid}");
    let exit = client.done("POST", "/nodes/pve/qemu", &form(&all)).await?;
    ensure!(exit == "OK", "create {pairs:?}: {exit}");
    let exit = client.done("POST", &format!("{vm}/status/start"), "").await?;
    ensure!(exit == "OK", "start {pairs:?}: {exit}");
    let status = client.get(&format!("{vm}/status/current")).await?.data();
    ensure!(status["qmpstatus"] == "running", "{pairs:?}: {status}");
    Ok(())
}

/// Puts an install medium of a few sectors on the storage.
fn small_iso(lab: &Lab, name: &str) -> anyhow::Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    file.as_file().set_len(64 << 10)?;
    lab.import_iso("local", name, file.path())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_form_of_hardware_starts_in_a_real_qemu() -> anyhow::Result<()> {
    if !setup::is_complete() {
        println!("skipped: this machine lacks QEMU or firmware; cargo lab test installs them");
        return Ok(());
    }
    let (lab, client) = lab_with(LabConfig::default()).await?;
    small_iso(&lab, "a.iso")?;
    small_iso(&lab, "b.iso")?;
    let net = "virtio,bridge=vmbr0,mtu=1400,queues=2,firewall=1,rate=10,tag=7";
    let cases: [&[(&str, &str)]; 8] = [
        &[
            ("scsihw", "virtio-scsi-single"),
            (
                "scsi0",
                "local:1,format=qcow2,discard=on,ssd=1,iothread=1,cache=writeback,aio=threads,serial=abc",
            ),
            ("scsi30", "local:0.1,backup=0,replicate=0,mbps=50,iops=100"),
            ("virtio0", "local:1,iothread=1,format=raw"),
            ("sata5", "local:0.5,ssd=1,wwn=0x5000c50015ea71aa"),
            ("ide0", "local:iso/a.iso,media=cdrom"),
            ("ide2", "local:iso/b.iso,media=cdrom"),
            ("ide3", "none,media=cdrom"),
            ("sata0", "local:cloudinit"),
            ("net0", net),
            ("net1", "e1000,bridge=vmbr0,link_down=1"),
            ("serial0", "socket"),
            ("serial2", "socket"),
            ("rng0", "source=/dev/urandom,max_bytes=1024,period=1000"),
            ("vga", "std,memory=32"),
            ("boot", "order=ide0;scsi0;net0"),
        ],
        &[
            ("machine", "q35"),
            ("ide2", "local:iso/a.iso,media=cdrom"),
            ("scsi0", "local:1"),
            ("scsi8", "local:1"),
            ("vga", "virtio"),
            ("net0", "rtl8139,bridge=vmbr0"),
            ("agent", "enabled=1,type=isa,fstrim_cloned_disks=1"),
            ("watchdog", "model=i6300esb,action=reset"),
        ],
        &[("scsihw", "lsi53c810"), ("scsi1", "local:1"), ("vga", "cirrus"), ("net0", "vmxnet3,bridge=vmbr0")],
        &[("scsihw", "megasas"), ("scsi1", "local:1"), ("vga", "vmware"), ("net0", "e1000e,bridge=vmbr0")],
        &[("scsihw", "pvscsi"), ("scsi1", "local:1"), ("vga", "serial0"), ("serial0", "socket")],
        &[
            ("bios", "ovmf"),
            ("machine", "q35"),
            ("efidisk0", "local:1,efitype=4m,pre-enrolled-keys=1"),
            ("tpmstate0", "local:1,version=v2.0"),
            ("scsihw", "virtio-scsi-pci"),
            ("scsi0", "local:1"),
        ],
        &[("bios", "ovmf"), ("efidisk0", "local:0,efitype=4m,format=qcow2"), ("tpmstate0", "local:1")],
        &[
            ("cores", "2"),
            ("sockets", "2"),
            ("vcpus", "3"),
            ("numa", "1"),
            ("cpu", "x86-64-v2-AES"),
            ("balloon", "0"),
            ("acpi", "0"),
            ("localtime", "1"),
        ],
    ];
    for (vmid, pairs) in (200..).zip(cases) {
        starts(&client, vmid, pairs).await?;
        // One at a time: sixteen emulated processors at once would make each other late.
        assert_eq!(client.done("POST", &format!("/nodes/pve/qemu/{vmid}/status/stop"), "").await?, "OK");
    }
    let config = lab.vm(205).context("created")?.config;
    assert_eq!(
        (config["efidisk0"].as_str(), config["tpmstate0"].as_str()),
        (
            "local:205/vm-205-disk-0.raw,efitype=4m,pre-enrolled-keys=1,size=528K",
            "local:205/vm-205-disk-2.raw,size=4M,version=v2.0"
        )
    );
    let monitor = lab.vm(200).context("created")?.config;
    assert_eq!(monitor["ide0"], "local:iso/a.iso,media=cdrom,size=64K");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_import_brings_its_size_and_must_be_an_image() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 150, ..ImportVm::default() }).await?;
    small_iso(&lab, "d.iso")?;
    let create = |disk: &str| form(&[("vmid", "160"), ("scsi0", disk)]);
    let cases = [
        (
            "local:5,import-from=local:import/img.qcow2",
            json!({"scsi0": "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>"}),
        ),
        (
            "local:0,import-from=local:iso/d.iso",
            json!({"scsi0": "local:iso/d.iso has wrong type 'iso' - needs to be 'images' or 'import'"}),
        ),
    ];
    for (disk, errors) in cases {
        let reply = client.call("POST", "/nodes/pve/qemu", &create(disk)).await?;
        assert_eq!((reply.status, reply.json()["errors"].clone()), (400, errors), "{disk}");
    }
    let absolute = client.call("POST", "/nodes/pve/qemu", &create("local:0,import-from=/etc/passwd")).await?;
    assert_eq!(
        absolute.line(),
        "500 Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 651."
    );
    assert_eq!(
        client.done("POST", "/nodes/pve/qemu", &create("local:0,import-from=local:import/no.qcow2")).await?,
        "unable to create VM 160 - volume 'local:import/no.qcow2' does not exist"
    );
    let of_a_vm = create("local:0,import-from=local:150/vm-150-disk-0.qcow2,format=qcow2");
    let reply = client.call("POST", "/nodes/pve/qemu", &of_a_vm).await?;
    let (exit, log) = client.task(&reply).await?;
    assert_eq!(exit, "OK");
    assert_eq!(log[0], "create full clone of drive (local:150/vm-150-disk-0.qcow2)");
    assert!(
        log.contains(&"scsi0: successfully created disk 'local:160/vm-160-disk-0.qcow2,size=1G'".to_owned()),
        "{log:?}"
    );
    lab.stop().await;
    Ok(())
}
