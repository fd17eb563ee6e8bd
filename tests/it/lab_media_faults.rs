//! What brings media to a VM and takes them out again, failing in every way: ISOs and disk images that are sent, downloaded
//! by the node, compared and imported; the seed's disc; drives that are emptied.
//!
//! A lost or late answer costs nothing. Whatever else happens, the build succeeds or names the cause, nothing of it is
//! left after `forge gc`, no half of a medium is taken for the whole by the next build, and no template is harmed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forge::event::Ending;
use forge::plan::{Delivery, Plan};
use forge_lab::{Fault, LEAST_PRIVILEGES_PVE9};
use forge_machine::{Algorithm, Checksum, DiskSpec, Location, Medium, SourceSpec};
use forge_proxmox::api::task::STALL;
use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use crate::lab_faults::{AT_ONCE, judge, refusal, words_of};
use crate::lab_matrix::{OnLab, install_of, plan_for};
use crate::support::lab_site::{FIRST_ID, TOKEN};
use crate::support::matrix::Scene as _;
use crate::support::web::{Page, Web};

const CREATE: &str = "/nodes/*/qemu";
const UPLOAD: &str = "/nodes/*/storage/*/upload";
const DOWNLOAD: &str = "/nodes/*/storage/*/download-url";

/// How a medium comes to the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// An ISO of this machine is sent.
    SentIso,
    /// The node downloads it.
    DownloadedIso,
    /// It is there, and the node compares it.
    ComparedIso,
    /// A disk image is sent and imported.
    SentImage,
    /// The seed is on a disc, which is removed at the end.
    SeedDisc,
    /// The same with a token that may not remove it: it is emptied.
    EmptiedSeedDisc,
}

const WAYS: [Way; 6] =
    [Way::SentIso, Way::DownloadedIso, Way::ComparedIso, Way::SentImage, Way::SeedDisc, Way::EmptiedSeedDisc];

/// The media, and who serves them.
struct Media {
    folder: tempfile::TempDir,
    iso: Vec<u8>,
    web: Web,
}

impl Media {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let iso = b"an installer".repeat(30_000);
        std::fs::write(folder.path().join("installer.iso"), &iso).expect("the folder is ours");
        let image = folder.path().join("cloud.qcow2");
        let made = std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&image)
            .arg("64M")
            .status();
        assert!(made.expect("qemu-img runs").success());
        let web = Web::with([("installer.iso", Page::new(iso.clone()))]).await;
        Self { folder, iso, web }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn checksum(&self) -> Checksum {
        let hex = Sha256::digest(&self.iso).iter().map(|byte| format!("{byte:02x}")).collect();
        Checksum::Digest { algorithm: Algorithm::Sha256, hex }
    }

    fn plan(&self, way: Way) -> Plan {
        let proved = |location| Medium { location, checksum: self.checksum() };
        let mut plan = match way {
            Way::SentIso => install_of(Medium::file(self.file("installer.iso"))),
            Way::DownloadedIso => install_of(proved(Location::Url(self.web.url("installer.iso")))),
            Way::ComparedIso => install_of(proved(Location::Volume("local:iso/installer.iso".into()))),
            Way::SentImage | Way::SeedDisc | Way::EmptiedSeedDisc => plan_for(FIRST_ID + 98),
        };
        match way {
            Way::SentImage => {
                let image = Medium::file(self.file("cloud.qcow2"));
                plan.machine.source = SourceSpec::Image { image, copy: false };
                plan.machine.disks =
                    vec![DiskSpec { slot: "scsi0".into(), size: Some(1 << 30), ..DiskSpec::default() }];
            }
            Way::SeedDisc | Way::EmptiedSeedDisc => plan.seed.delivery = Delivery::Disc,
            Way::SentIso | Way::DownloadedIso | Way::ComparedIso => {}
        }
        plan
    }

    /// A lab, and a build whose medium comes that way.
    async fn scene(&self, way: Way, stall: Duration) -> OnLab {
        let scene = OnLab::with(self.plan(way), stall).await;
        let mut privileges = [LEAST_PRIVILEGES_PVE9, &["Datastore.AllocateTemplate"]].concat();
        match way {
            Way::DownloadedIso | Way::ComparedIso => privileges.push("Sys.AccessNetwork"),
            Way::SeedDisc => privileges.push("Datastore.Allocate"),
            Way::SentIso | Way::SentImage | Way::EmptiedSeedDisc => {}
        }
        scene.site.lab.set_token_access(TOKEN, &[("/", &privileges)]);
        if way == Way::ComparedIso {
            let file = self.file("installer.iso");
            scene.site.lab.import_iso("local", "installer.iso", &file).expect("put there");
        }
        scene
    }

    /// Of the media only whole ones are on the storage, and of the seed nothing.
    fn assert_whole(&self, scene: &OnLab, way: Way, case: &str) {
        for path in scene.site.media_files() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).expect("read");
            if name.starts_with("forge-seed-") {
                assert_eq!(way, Way::EmptiedSeedDisc, "{case}: {name} is left");
                assert!(bytes.iter().all(|byte| *byte == 0), "{case}: {name} still holds the seed");
            } else if name.ends_with("installer.iso") {
                assert!(bytes == self.iso, "{case}: {name} has {} bytes", bytes.len());
            } else {
                let image = std::fs::read(self.file("cloud.qcow2")).expect("read");
                assert!(name.ends_with("-cloud.qcow2") && bytes == image, "{case}: {name}");
            }
        }
        for vm in scene.site.others() {
            let medium = vm.config.values().find(|value| value.contains(".iso"));
            assert_eq!(medium, None, "{case}: {vm:?}");
        }
    }

    /// Judges a build that is over, and builds again where it failed.
    async fn judge(&self, scene: &OnLab, way: Way, ending: &Ending, case: &str, words: &str) {
        judge(scene, ending, case, &[words]).await;
        self.assert_whole(scene, way, case);
        if matches!(ending, Ending::Failed { .. }) {
            let again = scene.bench.build_with(None).await.expect("it lives");
            assert!(matches!(again, Ending::Done { .. }), "{case}: built again: {again:?}");
            scene.assert_template(case);
            self.assert_whole(scene, way, case);
        }
    }
}

/// The calls of a build that have to do with its media.
async fn calls_of(media: &Media, way: Way) -> Vec<Call> {
    let scene = media.scene(way, STALL).await;
    let ending = scene.bench.build_with(None).await.expect("it lives");
    assert!(matches!(ending, Ending::Done { .. }), "{way:?}: {ending:?}");
    scene.assert_template("without faults");
    media.assert_whole(&scene, way, "without faults");
    let mut counted: BTreeMap<(String, String), usize> = BTreeMap::new();
    for call in scene.site.lab.requests() {
        let Some(route) = call.route else { continue };
        let route: Vec<&str> =
            route.split('/').map(|part| if part.starts_with('{') { "*" } else { part }).collect();
        let route = route.join("/");
        let concerns = route.contains("/storage")
            || (call.method == "POST" && route == CREATE)
            || (call.method == "PUT" && route.ends_with("/config"));
        if concerns {
            *counted.entry((call.method, route)).or_default() += 1;
        }
    }
    scene.close().await;
    let numbered = |((method, route), count): ((String, String), usize)| {
        (1..=count).map(move |number| (method.clone(), route.clone(), number))
    };
    counted.into_iter().flat_map(numbered).collect()
}

/// What a build may be about when a call about its media fails, in the words of the failure.
fn tried_with(way: Way, method: &str, route: &str) -> &'static [&'static str] {
    let by_disc = matches!(way, Way::SeedDisc | Way::EmptiedSeedDisc);
    match (method, route) {
        ("POST", CREATE) => &["could not be created"],
        ("PUT", _) => &[
            "could not be configured",
            "the build's settings could not be taken off the VM",
            "the artefact could not be made",
            "the template is made, but has not got its name and tags",
            "an older one still bears the tag `latest` too",
        ],
        _ if by_disc => &["could not be configured", "the build's settings could not be taken off the VM"],
        _ => &["a medium of the build can't be had"],
    }
}

/// Method, route, which of them.
type Call = (String, String, usize);

/// Tries each fault at each call of each way.
async fn grid(faults: &[fn() -> Fault], costs_nothing: bool) {
    let media = &Media::new().await;
    let mut cases = Vec::new();
    for way in WAYS {
        let calls = calls_of(media, way).await;
        let has = |end: &str| calls.iter().any(|(_, route, _)| route == end);
        let expected = match way {
            Way::SentIso => has(UPLOAD) && has(CREATE) && !has(DOWNLOAD),
            Way::DownloadedIso | Way::ComparedIso => has(DOWNLOAD) && has(CREATE) && !has(UPLOAD),
            Way::SentImage => has(UPLOAD) && has(CREATE),
            Way::SeedDisc => has(UPLOAD) && has("/nodes/*/storage/*/content/*"),
            Way::EmptiedSeedDisc => has(UPLOAD) && !has(CREATE),
        };
        assert!(expected && calls.len() >= 5, "{way:?}: {calls:?}");
        cases.extend(
            calls.into_iter().flat_map(|call| faults.iter().map(move |make| (way, call.clone(), make))),
        );
    }
    let (tried, fired) = (cases.len(), &AtomicUsize::new(0));
    let try_case = async |(way, (method, route, number), make): (Way, Call, &fn() -> Fault)| {
        let scene = media.scene(way, STALL).await;
        let case = format!("{way:?}: {method} {route} no. {number}: {:?}", make());
        let handle = scene.site.lab.faults().on(&method, &route).call(number).then(make());
        let ending = scene.bench.build_with(None).await.expect("it lives");
        fired.fetch_add(handle.fired(), Ordering::Relaxed);
        assert!(!costs_nothing || matches!(ending, Ending::Done { .. }), "{case}: {ending:?}");
        if let Some(failure) = ending.failure() {
            let known = tried_with(way, &method, &route);
            assert!(known.iter().any(|words| failure.heading.contains(words)), "{case}: {failure:?}");
        }
        media.judge(&scene, way, &ending, &case, &words_of(&make())).await;
        scene.close().await;
    };
    stream::iter(cases).for_each_concurrent(AT_ONCE, try_case).await;
    let fired = fired.load(Ordering::Relaxed);
    assert!(fired == tried, "only {fired} of {tried} faults were met");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_answer_about_its_media_is_lost_broken_or_late_the_build_succeeds() {
    let faults: [fn() -> Fault; 3] = [
        || Fault::DoThenDrop,
        || Fault::Truncate { bytes: 5 },
        || Fault::DelayAfter(Duration::from_millis(400)),
    ];
    grid(&faults, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_about_its_media_is_refused_nothing_is_left_and_the_next_build_succeeds() {
    let faults: [fn() -> Fault; 2] =
        [|| refusal(500, "internal error"), || refusal(596, "Connection timed out")];
    grid(&faults, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_task_about_its_media_fails_dies_or_hangs_nothing_is_left_and_the_next_build_succeeds() {
    let media = &Media::new().await;
    let faults: [fn() -> Fault; 4] = [
        || Fault::TaskFail { text: "no space left on device".into() },
        || Fault::TaskFailAfter { text: "storage 'local' is full".into() },
        || Fault::TaskDie,
        || Fault::TaskHang,
    ];
    let tasks = [
        (Way::SentIso, UPLOAD),
        (Way::SentImage, UPLOAD),
        (Way::SeedDisc, UPLOAD),
        (Way::DownloadedIso, DOWNLOAD),
        (Way::ComparedIso, DOWNLOAD),
        (Way::SentIso, CREATE),
        (Way::SentImage, CREATE),
    ];
    let cases = tasks.into_iter().flat_map(|task| faults.map(|make| (task, make)));
    let try_case = async |((way, route), make): ((Way, &str), fn() -> Fault)| {
        // What copies and compares says nothing by nature, and may be silent for eight times as long.
        let scene = media.scene(way, Duration::from_secs(3)).await;
        let case = format!("{way:?}: {route}: {:?}", make());
        let handle = scene.site.lab.faults().on("POST", route).then(make());
        let ending = scene.bench.build_with(None).await.expect("it lives");
        assert_eq!(handle.fired(), 1, "{case}");
        let told = format!("{ending:?}");
        let words = words_of(&make());
        // What the node can't download comes by way of this machine.
        let succeeds = way == Way::DownloadedIso;
        assert!(succeeds == matches!(ending, Ending::Done { .. }), "{case}: {told}");
        assert!(succeeds || told.contains(&words), "{case}: {told}");
        media.judge(&scene, way, &ending, &case, &words_of(&make())).await;
        scene.close().await;
    };
    stream::iter(cases).for_each_concurrent(AT_ONCE, try_case).await;
}
