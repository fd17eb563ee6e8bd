//! The local target against a real QEMU whose disk boots nothing: SeaBIOS alone has a screen, a keyboard and a
//! power supply, which is all that is needed here.

use std::time::Duration;

use forge_machine::conformance::{self, Subject};
use forge_machine::{
    Attachments, ChainId, DiskSpec, FileFormat, Finish, KeyChord, SourceSpec, StopLadder, StopRung,
};
use jiff::Timestamp;
use tokio::io::AsyncReadExt;

use super::*;

pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    directory: tempfile::TempDir,
    pub(crate) hypervisor: QemuHypervisor,
    pub(crate) spec: MachineSpec,
    pub(crate) mark: Ownership,
}

impl Rig {
    pub(crate) fn target(&self) -> QemuTarget {
        self.hypervisor.shared.target.clone()
    }

    pub(crate) fn files(&self) -> Finish {
        Finish::Files {
            directory: self.directory.path().join("output"),
            name: "image".into(),
            formats: FileFormat::ALL.to_vec(),
            compress: false,
            replace: false,
            about: [("chain-id".to_owned(), "CHAIN-test".to_owned())].into(),
        }
    }

    /// What this machine has besides QEMU.
    pub(crate) fn host(&self) -> &Host {
        self.hypervisor.shared.host()
    }

    /// Where the images go.
    pub(crate) fn output(&self) -> PathBuf {
        self.directory.path().join("output")
    }

    /// The image that the VM starts from.
    pub(crate) fn base(&self) -> PathBuf {
        self.directory.path().join("base.raw")
    }

    /// Makes a program of these lines for the shell.
    pub(crate) fn script(&self, name: &str, lines: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        path
    }

    pub(crate) async fn created(&self) -> VmRef {
        let at = self.hypervisor.propose_id(&self.spec, &[]).await.expect("an id");
        self.hypervisor.submit_create(&self.spec, &at, &self.mark).await.expect("created");
        at
    }

    pub(crate) async fn started(&self) -> (VmRef, Arc<dyn Machine>) {
        self.started_with(&Attachments::default()).await
    }

    async fn started_with(&self, attachments: &Attachments) -> (VmRef, Arc<dyn Machine>) {
        let at = self.created().await;
        let machine = self.hypervisor.machine(&at);
        machine.configure(&self.spec, &self.mark, attachments).await.expect("configured");
        machine.submit_start().await.expect("started");
        (at, machine)
    }
}

pub(crate) async fn rig() -> Option<Rig> {
    for program in ["qemu-system-x86_64", "qemu-img"] {
        if find_program(Path::new(program)).is_none() {
            println!("skipped: {program} is not installed");
            return None;
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("base.raw");
    ImageTool::default().create(&image, FileFormat::Raw, 1 << 20).await.expect("an empty disk");
    // Deep enough that no socket path fits into an address.
    let root = directory.path().join("w".repeat(100));
    let target = QemuTarget {
        accelerator: AcceleratorChoice::Fixed(Accelerator::Tcg),
        ..QemuTarget::new("local", root)
    };
    let spec = MachineSpec {
        cores: Some(1),
        memory_mib: Some(64),
        disks: vec![DiskSpec { slot: "virtio0".into(), size: Some(2 << 20), ..DiskSpec::default() }],
        ..MachineSpec::new(SourceSpec::image(image), NODE)
    };
    let mark = Ownership {
        nonce: Nonce::from_bytes(rand::random()),
        chain_id: ChainId::new("CHAIN-test"),
        owner: "test@here".into(),
        started: Timestamp::now(),
        heartbeat: Timestamp::now(),
        state: BuildState::Building,
        memory_mib: None,
    };
    Some(Rig { directory, hypervisor: QemuHypervisor::new(target), spec, mark })
}

fn runs(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[tokio::test]
async fn a_local_qemu_conforms_to_the_port() {
    let Some(rig) = rig().await else { return };
    let finish = rig.files();
    let subject = Subject { hypervisor: &rig.hypervisor, spec: rig.spec.clone(), finish };
    assert_eq!(conformance::run(&subject).await, []);
}

#[tokio::test]
async fn a_running_vm_shows_its_screen_takes_keys_and_forwards_a_port() {
    let Some(rig) = rig().await else { return };
    let (at, machine) = rig.started().await;

    let mut display = machine.display().await.expect("a display");
    let mut version = [0; 12];
    display.stream.read_exact(&mut version).await.expect("RFB speaks first");
    assert_eq!(&version, b"RFB 003.008\n");

    machine
        .press(&[KeyChord(vec!["shift".into(), "a".into()]), KeyChord(vec!["ret".into()])])
        .await
        .expect("pressed");
    let error = machine.press(&[KeyChord(vec!["no-such-key".into()])]).await.expect_err("unknown key");
    assert!(error.to_string().contains("no-such-key"), "{error}");

    let report = machine.addresses().await.expect("asked");
    let (address, port) = report.candidates.first().copied().expect("a forwarded port");
    tokio::net::TcpStream::connect((address, port)).await.expect("QEMU listens there");
    assert!(!report.agent && report.detail.contains("guest agent not running"), "{report:?}");

    assert!(rig.hypervisor.work_directory(&at).join("serial.log").exists());
    machine.destroy().await.expect("a running VM is stopped and removed");
    assert!(!rig.hypervisor.work_directory(&at).exists());
}

#[tokio::test]
async fn two_vms_at_once_get_different_ports() {
    let Some(rig) = rig().await else { return };
    let (_, first) = rig.started().await;
    let (_, second) = rig.started().await;
    let ports = [first.addresses().await.expect("asked"), second.addresses().await.expect("asked")];
    let [a, b] = ports.map(|report| report.candidates.first().copied().expect("a port"));
    assert_ne!(a, b);
    first.destroy().await.expect("removed");
    second.destroy().await.expect("removed");
}

#[tokio::test]
async fn a_guest_that_ignores_agent_and_button_is_told_and_only_then_cut_off() {
    let Some(rig) = rig().await else { return };
    let (_, machine) = rig.started().await;
    let gentle =
        StopLadder { agent: Duration::from_millis(200), acpi: Duration::from_millis(200), power_off: false };
    let error = machine.stop(&gentle).await.expect_err("SeaBIOS obeys nobody");
    let text = error.to_string();
    assert!(text.contains("within 400ms") && text.contains("does not answer `guest-ping`"), "{text}");
    assert!(text.contains("does not obey the power button"), "{text}");
    assert_eq!(machine.state().await.expect("asked").power, Power::Running);

    let rung = machine.stop(&StopLadder { power_off: true, ..gentle }).await.expect("stopped");
    assert_eq!(rung, StopRung::PowerOff);
    assert_eq!(machine.state().await.expect("asked").power, Power::Stopped);
    machine.destroy().await.expect("removed");
}

#[tokio::test]
async fn another_process_judges_and_removes_a_running_vm_from_its_directory_alone() {
    let Some(rig) = rig().await else { return };
    let (at, machine) = rig.started().await;
    let pid = rig.hypervisor.shared.directory(&at).expect("a name").running().expect("recorded").as_raw();
    assert!(runs(pid));

    // Knows nothing but the target, as `forge gc` does after a kill -9.
    let other = QemuHypervisor::new(rig.target());
    let seen = other.standing(&at, &rig.mark.nonce).await.expect("asked");
    assert_eq!(seen, Standing::Ours { power: Power::Running, kept: false });
    other.machine(&at).destroy().await.expect("removed");
    assert!(!runs(pid), "QEMU still runs");
    assert_eq!(other.standing(&at, &rig.mark.nonce).await.expect("asked"), Standing::Gone);
    assert!(matches!(machine.state().await, Err(PortError::NotFound { .. })));
}

#[tokio::test]
async fn a_recycled_pid_is_never_signalled() {
    let Some(rig) = rig().await else { return };
    let at = rig.created().await;
    let mut bystander = std::process::Command::new("sleep").arg("600").spawn().expect("started");
    let pid_file = rig.hypervisor.work_directory(&at).join("qemu.pid");
    std::fs::write(pid_file, format!("{}\n", bystander.id())).expect("written");

    let seen = rig.hypervisor.standing(&at, &rig.mark.nonce).await.expect("asked");
    assert_eq!(seen, Standing::Ours { power: Power::Stopped, kept: false });
    rig.hypervisor.machine(&at).destroy().await.expect("removed");
    assert!(bystander.try_wait().expect("asked").is_none(), "a foreign process was killed");
    bystander.kill().expect("killed");
    bystander.wait().expect("reaped");
}

#[tokio::test]
async fn a_creation_cut_off_before_the_mark_is_ours_and_foreign_directories_are_not() {
    let Some(rig) = rig().await else { return };
    let at = VmRef::new("vm-00000001", NODE);
    let directory = rig.hypervisor.work_directory(&at);
    std::fs::create_dir_all(&directory).expect("made");
    let seen = rig.hypervisor.standing(&at, &rig.mark.nonce).await.expect("asked");
    assert_eq!(seen, Standing::Ours { power: Power::Stopped, kept: false });

    std::fs::write(directory.join("thesis.txt"), "years of work").expect("written");
    let seen = rig.hypervisor.standing(&at, &rig.mark.nonce).await.expect("asked");
    assert!(matches!(seen, Standing::Foreign { .. }), "{seen:?}");

    for id in ["../etc", "", ".", "a/b"] {
        let at = VmRef::new(id, NODE);
        assert_eq!(
            rig.hypervisor.standing(&at, &rig.mark.nonce).await.expect("asked"),
            Standing::Gone,
            "{id}"
        );
        assert!(rig.hypervisor.machine(&at).destroy().await.is_err(), "{id}");
    }
}

#[tokio::test]
async fn finalize_work_that_is_stopped_leaves_the_vm_and_destroying_it_leaves_no_temporary_file() {
    let Some(rig) = rig().await else { return };
    let at = rig.created().await;
    let machine = rig.hypervisor.machine(&at);
    machine.configure(&rig.spec, &rig.mark, &Attachments::default()).await.expect("configured");

    // A `qemu-img` that never ends, but makes its file.
    let slow = rig.directory.path().join("slow-qemu-img");
    std::fs::write(&slow, "#!/bin/sh\nfor last; do :; done\n: > \"$last\"\nexec sleep 600\n")
        .expect("written");
    std::fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    let hypervisor = QemuHypervisor::new(QemuTarget { image_tool: slow, ..rig.target() });
    let machine_there = hypervisor.machine(&at);
    let task = machine_there.submit_finalize(&rig.files()).await.expect("submitted");
    let output = rig.directory.path().join("output");
    let count = || std::fs::read_dir(&output).map_or(0, Iterator::count);
    let appears = async {
        while count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, appears).await.expect("a temporary file");
    let seen = hypervisor.standing(&at, &rig.mark.nonce).await.expect("asked");
    assert_eq!(seen, Standing::Busy { lock: "finalize".to_owned() });
    hypervisor.stop_task(&task).await.expect("stopped");
    assert!(hypervisor.wait(&task).await.is_err());
    let seen = hypervisor.standing(&at, &rig.mark.nonce).await.expect("asked");
    assert_eq!(seen, Standing::Ours { power: Power::Stopped, kept: false });

    machine.destroy().await.expect("removed");
    assert_eq!(count(), 0);
}

#[tokio::test]
async fn facts_name_the_version_the_accelerator_and_the_image() {
    let Some(rig) = rig().await else { return };
    let SourceSpec::Image { image, .. } = rig.spec.source.clone() else { panic!("an image") };
    let query = |image: Medium| FactsQuery {
        source: SourceSelector::Image(image),
        isos: Vec::new(),
        storages: Vec::new(),
        bridges: Vec::new(),
        node: None,
        vmid: None,
        memory_mib: None,
        placed: Vec::new(),
        pool: None,
        tags: Vec::new(),
        needs_console: false,
        needs_agent: false,
    };
    let (facts, findings) = rig.hypervisor.facts(&query(image)).await.expect("asked");
    assert_eq!(findings, []);
    assert!(facts.product.starts_with("QEMU ") && facts.product.contains('.'), "{}", facts.product);
    assert_eq!(facts.notes, ["accelerator TCG: the site file says so", "sandbox: on (seccomp)"]);
    assert_eq!(facts.source.expect("found").disks.first().map(|disk| disk.size), Some(1 << 20));
    assert_eq!(rig.hypervisor.check(&rig.spec, &Facts { source: None, ..facts_without_source() }), []);

    let (facts, findings) =
        rig.hypervisor.facts(&query(Medium::file("/nonexistent/image"))).await.expect("asked");
    assert!(facts.source.is_none());
    let finding = findings.first().expect("a finding");
    assert!(finding.fatal && finding.help.contains("No such file"), "{finding:?}");

    let bare = QemuHypervisor::new(QemuTarget { binary: "no-such-qemu".into(), ..rig.target() });
    let (_, findings) = bare.facts(&query(Medium::file("/nonexistent/image"))).await.expect("asked");
    assert!(
        findings.first().is_some_and(|finding| finding.message.contains("not installed")),
        "{findings:?}"
    );
}

pub(crate) fn facts_without_source() -> Facts {
    Facts {
        product: NAME.into(),
        notes: Vec::new(),
        nodes: Vec::new(),
        placed: None,
        source: None,
        storages: Vec::new(),
        bridges: None,
        endpoint: None,
        no_seed_disc: None,
    }
}

#[tokio::test]
async fn a_vm_that_qemu_refuses_to_start_tells_qemus_words() {
    let Some(rig) = rig().await else { return };
    let at = rig.created().await;
    let machine = rig.hypervisor.machine(&at);
    let spec = MachineSpec { cpu: Some("no-such-cpu".into()), ..rig.spec.clone() };
    machine.configure(&spec, &rig.mark, &Attachments::default()).await.expect("configured");
    let error = machine.submit_start().await.expect_err("refused");
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("no-such-cpu"), "{error}: {cause}");
    assert_eq!(machine.state().await.expect("asked").power, Power::Stopped);
    machine.destroy().await.expect("removed");
}

/// Serves the least seed there is and tells the paths that were asked for.
async fn serve_seed(listener: tokio::net::TcpListener, asked: tokio::sync::mpsc::UnboundedSender<String>) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    while let Ok((stream, _)) = listener.accept().await {
        let mut stream = BufReader::new(stream);
        let mut request = String::new();
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|count| count > 2) {
            request.push_str(&line);
            line.clear();
        }
        let path = request.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let body = match path.as_str() {
            "/meta-data" => "instance-id: forge-test\n",
            "/user-data" => "#cloud-config\n{}\n",
            _ => "",
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        let _ = asked.send(path);
    }
}

#[tokio::test]
async fn a_real_guest_fetches_its_seed_answers_by_its_agent_and_shuts_down_when_asked() {
    let Some(image) = std::env::var_os("FORGE_QEMU_TEST_IMAGE") else {
        println!(
            "skipped: FORGE_QEMU_TEST_IMAGE does not name a disk image with cloud-init and the guest agent"
        );
        return;
    };
    let Some(mut rig) = rig().await else { return };
    rig.spec.source = SourceSpec::image(image);
    rig.spec.disks.clear();
    rig.spec.cores = Some(2);
    rig.spec.memory_mib = Some(1024);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let (tell, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::spawn(serve_seed(listener, tell));

    let at = rig.created().await;
    let machine = rig.hypervisor.machine(&at);
    let smbios_serial = Some(format!("ds=nocloud;s=http://{HOST_ADDRESS}:{port}/"));
    machine
        .configure(&rig.spec, &rig.mark, &Attachments { smbios_serial, ..Attachments::default() })
        .await
        .expect("configured");
    machine.submit_start().await.expect("started");
    let limit = Duration::from_secs(240);
    let mut paths = Vec::new();
    while !paths.iter().any(|path| path == "/user-data") {
        paths.push(timeout(limit, asked.recv()).await.expect("the guest asks for its seed").expect("served"));
    }
    let answers = async {
        while !machine.addresses().await.expect("asked").agent {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(limit, answers).await.expect("the agent answers");
    let ladder = StopLadder { agent: limit, acpi: Duration::ZERO, power_off: false };
    assert_eq!(machine.stop(&ladder).await.expect("it obeys the agent"), StopRung::Shutdown);

    machine.detach(&rig.spec).await.expect("detached");
    let text =
        std::fs::read_to_string(rig.hypervisor.work_directory(&at).join("machine.json")).expect("read");
    assert!(!text.contains("nocloud"), "{text}");
    let finish = Finish::Files {
        directory: rig.directory.path().join("output"),
        name: "debian".into(),
        formats: vec![FileFormat::Qcow2],
        compress: false,
        replace: false,
        about: std::collections::BTreeMap::new(),
    };
    let task = machine.submit_finalize(&finish).await.expect("submitted");
    rig.hypervisor.wait(&task).await.expect("finalized");
    let artefact = machine.artefact(&finish).await.expect("made");
    println!("{artefact:?}");
    server.abort();
}

/// The local addresses on which a process listens or takes datagrams, from the kernel's tables: `0100007F:1F90`.
fn open_ports(pid: i32) -> Vec<String> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it runs")
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            link.to_string_lossy().strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if sockets.iter().any(|inode| words.get(9) == Some(&inode.as_str())) {
                found.push(format!("{table} {}", words.get(1).copied().unwrap_or_default()));
            }
        }
    }
    found
}

#[tokio::test]
async fn qemu_runs_in_its_sandbox_and_listens_on_nothing_but_the_held_port_of_the_loopback() {
    let Some(rig) = rig().await else { return };
    let (at, machine) = rig.started().await;
    let pid = rig.hypervisor.shared.directory(&at).expect("a name").running().expect("recorded").as_raw();
    let report = machine.addresses().await.expect("asked");
    let (_, port) = report.candidates.first().copied().expect("a forwarded port");
    assert_eq!(open_ports(pid), [format!("tcp 0100007F:{port:04X}")]);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])), "{status}");
    assert!(status.lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"])), "{status}");

    // Stopped and started anew, it has the same port, which nobody could take meanwhile.
    machine.power_off().await.expect("stopped");
    let plain = tokio::net::TcpSocket::new_v4().expect("a socket");
    plain.bind((std::net::Ipv4Addr::LOCALHOST, port).into()).expect_err("it is held");
    machine.submit_start().await.expect("started");
    let again = machine.addresses().await.expect("asked");
    assert_eq!(again.candidates, report.candidates);
    machine.destroy().await.expect("removed");
    plain.bind((std::net::Ipv4Addr::LOCALHOST, port).into()).expect("it is free again");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_by_its_number_and_nothing_runs() {
    let Some(rig) = rig().await else { return };
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let hypervisor = QemuHypervisor::new(QemuTarget { ssh_ports: Some((port, port)), ..rig.target() });
    let at = rig.created().await;
    let machine = hypervisor.machine(&at);
    machine.configure(&rig.spec, &rig.mark, &Attachments::default()).await.expect("configured");
    let error = machine.submit_start().await.expect_err("taken").to_string();
    assert!(error.contains(&format!("none of the ports {port}-{port} is free")), "{error}");
    assert_eq!(machine.state().await.expect("asked").power, Power::Stopped);
    machine.destroy().await.expect("removed");
}

#[tokio::test]
async fn a_qemu_that_dies_in_mid_build_is_seen_as_stopped_and_leaves_no_image() {
    let Some(rig) = rig().await else { return };
    let (at, machine) = rig.started().await;
    let pid = rig.hypervisor.shared.directory(&at).expect("a name").running().expect("recorded");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
    let stops = async {
        while machine.state().await.expect("asked").power != Power::Stopped {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, stops).await.expect("its end is seen");
    assert!(machine.display().await.is_err());
    machine.destroy().await.expect("removed");
    assert!(!rig.output().exists() && !rig.hypervisor.work_directory(&at).exists());
}

/// A rig whose VM has this hardware besides.
#[tokio::test]
async fn every_machine_starts_with_disks_on_every_bus_and_media_in_its_drives() {
    use forge_machine::Hardware;
    let disk = |slot: &str| DiskSpec { slot: slot.into(), size: Some(1 << 20), ..DiskSpec::default() };
    for (machine, slots, cdroms) in [
        ("q35", &["virtio0", "scsi3", "sata1", "nvme0", "ide3"][..], "sata"),
        ("i440fx", &["ide0", "virtio1", "scsi0", "sata2", "nvme1"], "ide"),
        ("microvm", &["virtio0", "scsi0", "nvme0", "sata0"], "virtio"),
        ("q35", &["sata0", "sata1", "sata2", "sata3"], "scsi"),
    ] {
        let hardware = Hardware { machine: Some(machine.into()), ..Hardware::default() };
        let Some(mut rig) = rig().await else { return };
        rig.spec.hardware = hardware;
        rig.spec.source = SourceSpec::New;
        rig.spec.disks = slots.iter().copied().map(disk).collect();
        rig.spec.isos = vec![Medium::file(rig.base()), Medium::file(rig.base())];
        rig.spec.extra = [("cdrom-interface".to_owned(), cdroms.to_owned())].into();
        rig.spec.floppy = machine != "microvm";
        assert_eq!(rig.hypervisor.check(&rig.spec, &facts_without_source()), []);
        let floppy = rig.spec.floppy.then(|| vec![0; 1440 << 10]);
        let (_, machine) = rig.started_with(&Attachments { floppy, ..Attachments::default() }).await;
        assert_eq!(machine.state().await.expect("asked").power, Power::Running);
        machine.destroy().await.expect("removed");
    }
}

#[tokio::test]
async fn an_image_is_copied_when_asked_and_the_copy_needs_it_no_more() {
    let Some(mut rig) = rig().await else { return };
    rig.spec.source = SourceSpec::Image { image: Medium::file(rig.base()), copy: true };
    let at = rig.hypervisor.propose_id(&rig.spec, &[]).await.expect("an id");
    let task = rig.hypervisor.submit_create(&rig.spec, &at, &rig.mark).await.expect("submitted");
    rig.hypervisor.wait(&task).await.expect("copied");
    std::fs::remove_file(rig.base()).expect("removed");
    let machine = rig.hypervisor.machine(&at);
    machine.configure(&rig.spec, &rig.mark, &Attachments::default()).await.expect("configured");
    let disk = rig.hypervisor.work_directory(&at).join("disk.qcow2");
    let info = rig.hypervisor.shared.tool.info(&disk, Some("qcow2")).await.expect("an image");
    assert_eq!((info.backing_filename, info.virtual_size), (None, 2 << 20), "a copy, and grown");
    machine.destroy().await.expect("removed");
}
