//! The templates of a target, as their notes and tags tell of them. Pure.
//!
//! Builds write what a template is into its notes, one `* name: value` a line: people read them on Proxmox's page,
//! and `forge list` and `forge latest` read them here.

pub use forge_machine::TAG_VALIDATED;
use forge_machine::{TAG_DEPRECATED, TAG_FAILED, TAG_LATEST, TAG_UNTESTED, TemplateFacts, VmRef};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Serialize;

/// What stands in a template's notes above the lines that forge writes.
pub const NOTES_HEAD: &str = "Template built by forge.";

/// The tag that every template of forge bears.
pub const TAG: &str = forge_machine::TAG_OWN;

/// A template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its id.
    pub vmid: String,
    /// The node that holds it.
    pub node: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether forge built it.
    pub forge: bool,
    /// The profile it was built from.
    pub profile: String,
    /// Its system, as `--os` takes it (`debian-12`).
    pub os: String,
    /// When it was built (`2026-11-21 04:05 UTC`).
    pub built: String,
    /// The number of its build.
    pub build_number: String,
    /// The chain id of its build.
    pub chain_id: String,
    /// Whether somebody protected it from being removed.
    pub protected: bool,
}

impl Entry {
    /// Reads a template's notes and tags.
    #[must_use]
    pub fn new(template: &TemplateFacts) -> Self {
        // Above it stands what people have written, which may look like forge's own.
        let notes = template.notes.rsplit_once(NOTES_HEAD).map_or(template.notes.as_str(), |(_, own)| own);
        let note = |name: &str| {
            let line = notes.lines().find_map(|line| line.strip_prefix(&format!("* {name}: ")));
            line.unwrap_or_default().trim().to_owned()
        };
        Self {
            name: template.name.clone(),
            vmid: template.vm.id.clone(),
            node: template.vm.node.clone(),
            forge: template.tags.iter().any(|tag| tag == TAG),
            tags: template.tags.clone(),
            profile: note("profile"),
            os: note("os").to_lowercase().replace(' ', "-"),
            built: note("built"),
            build_number: note("build number"),
            chain_id: note("chain id"),
            protected: template.protected,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn vm(&self) -> VmRef {
        VmRef::new(self.vmid.as_str(), self.node.as_str())
    }

    /// Whether it bears a tag.
    #[must_use]
    pub fn bears(&self, tag: &str) -> bool {
        self.tags.iter().any(|each| each.eq_ignore_ascii_case(tag))
    }

    /// When its build began, by the chain id; `None` when that does not tell.
    #[must_use]
    pub fn made(&self) -> Option<Timestamp> {
        let stamp = self.chain_id.split('-').nth(1)?.strip_suffix('Z')?;
        let time = DateTime::strptime("%Y%m%dT%H%M%S", stamp).ok()?;
        time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp())
    }

    /// What tells newer from older: the time in the chain id, else the time of the notes; then the VMID.
    fn age(&self) -> (String, u64) {
        let stamp = self.chain_id.split('-').nth(1).unwrap_or_default();
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        let time = if stamp.is_empty() { digits(&self.built) } else { digits(stamp) };
        (time, self.vmid.parse().unwrap_or_default())
    }
}

/// What a template must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its system.
    pub os: Option<String>,
    /// Its profile.
    pub profile: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Tags that it must all have.
    pub tags: Vec<String>,
    /// Templates that forge did not build, too.
    pub all: bool,
}

impl Wanted {
    /// Whether a template is it.
    #[must_use]
    pub fn takes(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        (self.all || entry.forge)
            && is(&self.os, &entry.os)
            && is(&self.profile, &entry.profile)
            && is(&self.name, &entry.name)
            && self.tags.iter().all(|tag| entry.tags.contains(tag))
    }
}

/// The tags of what nobody takes unless he names them: what failed its trial, waits for it, or is to go.
pub const UNFIT: [&str; 3] = [TAG_FAILED, TAG_UNTESTED, TAG_DEPRECATED];

/// The one to take of templates that are sorted newest first: the newest that is published as `latest`, or else the
/// newest of those that failed no trial, wait for none, and are not to go.
#[must_use]
pub fn latest(entries: Vec<Entry>) -> Option<Entry> {
    let published = entries.iter().position(|entry| entry.tags.iter().any(|tag| tag == TAG_LATEST));
    let fit = |entry: &Entry| !UNFIT.iter().any(|tag| entry.bears(tag));
    let at = published.or_else(|| entries.iter().position(fit))?;
    entries.into_iter().nth(at)
}

/// The templates of a profile that bear `latest` and are not the newest of them.
#[must_use]
pub fn superseded(templates: &[TemplateFacts], profile: &str) -> Vec<VmRef> {
    let wanted =
        Wanted { profile: Some(profile.to_owned()), tags: vec![TAG_LATEST.to_owned()], ..Wanted::default() };
    let older = choose(templates, &wanted).into_iter().skip(1);
    older.map(|entry| VmRef::new(entry.vmid, entry.node)).collect()
}

/// The templates that are wanted, newest first.
#[must_use]
pub fn choose(templates: &[TemplateFacts], wanted: &Wanted) -> Vec<Entry> {
    let mut entries: Vec<Entry> =
        templates.iter().map(Entry::new).filter(|entry| wanted.takes(entry)).collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.age()));
    entries
}

#[cfg(test)]
mod tests {
    use forge_machine::VmRef;

    use super::*;

    fn template(vmid: &str, name: &str, tags: &[&str], notes: &str) -> TemplateFacts {
        TemplateFacts {
            vm: VmRef::new(vmid, "pve"),
            name: name.into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            notes: notes.into(),
            protected: false,
        }
    }

    fn site() -> Vec<TemplateFacts> {
        let notes = |stamp: &str, os: &str| {
            format!(
                "Template built by forge.\n\n* chain id: CHAIN-{stamp}-x-1f\n* profile: x\n* os: {os}\n* built: later\n"
            )
        };
        vec![
            template("9003", "tpl-a", &["forge", "debian-12"], &notes("20261101T000000Z", "debian 12")),
            template("9001", "tpl-b", &["forge", "debian-12"], &notes("20261121T040506Z", "debian 12")),
            template("9002", "tpl-c", &["forge"], &notes("20261130T000000Z", "rocky 9")),
            template("100", "by-hand", &["golden"], "made by hand"),
        ]
    }

    #[test]
    fn the_newest_comes_first_whatever_its_id() {
        let names = |wanted: &Wanted| -> Vec<String> {
            choose(&site(), wanted).into_iter().map(|entry| entry.name).collect()
        };
        assert_eq!(names(&Wanted::default()), ["tpl-c", "tpl-b", "tpl-a"]);
        let debian = Wanted { os: Some("debian-12".into()), ..Wanted::default() };
        assert_eq!(names(&debian), ["tpl-b", "tpl-a"]);
        assert_eq!(
            names(&Wanted { tags: vec!["golden".into()], all: true, ..Wanted::default() }),
            ["by-hand"]
        );
        assert_eq!(names(&Wanted { tags: vec!["golden".into()], ..Wanted::default() }), [""; 0]);
    }

    #[test]
    fn the_newest_that_is_published_as_latest_is_the_one_to_take_and_the_older_ones_lose_the_tag() {
        let mut site = site();
        assert_eq!(latest(choose(&site, &Wanted::default())).map(|entry| entry.name), Some("tpl-c".into()));
        site[2].tags.push(TAG_FAILED.into());
        assert_eq!(latest(choose(&site, &Wanted::default())).map(|entry| entry.name), Some("tpl-b".into()));
        site[1].tags.push(TAG_UNTESTED.into());
        assert_eq!(latest(choose(&site, &Wanted::default())).map(|entry| entry.name), Some("tpl-a".into()));
        for index in [0, 1, 3] {
            site[index].tags.push("latest".into());
        }
        assert_eq!(latest(choose(&site, &Wanted::default())).map(|entry| entry.name), Some("tpl-b".into()));
        assert_eq!(superseded(&site, "x"), [VmRef::new("9003", "pve")]);
        assert_eq!(superseded(&site, "y"), []);
        assert_eq!(latest(Vec::new()), None);
    }

    #[test]
    fn notes_are_read_back() {
        let entry = Entry::new(&site()[1]);
        assert_eq!((entry.os.as_str(), entry.profile.as_str(), entry.forge), ("debian-12", "x", true));
        assert_eq!(entry.chain_id, "CHAIN-20261121T040506Z-x-1f");
        assert_eq!(entry.made(), "2026-11-21T04:05:06Z".parse().ok());
        assert_eq!(Entry::default().made(), None);
        assert_eq!(
            Entry::new(&site()[3]),
            Entry {
                name: "by-hand".into(),
                vmid: "100".into(),
                node: "pve".into(),
                tags: vec!["golden".into()],
                ..Entry::default()
            }
        );
    }
}
