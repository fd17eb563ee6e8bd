//! Kickstart: commands and options by release, sections that are closed, and what an unattended install needs.

use super::{Found, nearest};

/// Commands with their options and releases; the file says where from.
const TABLE: &str = include_str!("kickstart.txt");
/// Sections (Kickstart documentation of pykickstart, "Chapters 3-10").
const SECTIONS: &[&str] = &[
    "%packages",
    "%pre",
    "%pre-install",
    "%post",
    "%onerror",
    "%traceback",
    "%addon",
    "%anaconda",
    "%certificate",
    "%include",
];
/// Without one of these Anaconda stops and asks.
const NEEDED: &[(&[&str], &str)] = &[
    (&["lang"], "the language"),
    (&["keyboard"], "the keyboard"),
    (&["timezone"], "the time zone"),
    (&["rootpw", "user"], "who may log in"),
    (
        &["autopart", "part", "partition", "logvol", "btrfs", "mount", "liveimg", "ostreesetup"],
        "how to divide the disk",
    ),
];

/// RHEL and its kin.
const EL: &[&str] =
    &["rhel", "rocky", "almalinux", "centos", "centos-stream", "ol", "oracle", "oraclelinux", "eurolinux"];

/// Options whose value is one of some words, by command, with the releases that have not all of them (pykickstart's
/// `network.py`, `autopart.py` and `constants.py`).
const VALUES: &[(&str, &str, &[&str])] = &[
    ("network", "bootproto", &["dhcp", "bootp", "static", "query", "ibft"]),
    ("autopart", "type", &["lvm", "btrfs@fedora", "plain", "thinp"]),
];
/// Commands that say nothing alone (`lang.py`, `keyboard.py`, `timezone.py`).
const NOT_ALONE: &[(&str, &str)] = &[
    ("lang", "lang en_US.UTF-8"),
    ("keyboard", "keyboard --xlayouts=us"),
    ("timezone", "timezone Europe/Berlin --utc"),
];

/// The release's name in the table.
fn release(distribution: &str, version: &str) -> Result<&'static str, Found> {
    let known = "forge knows kickstart of RHEL 9 and 10 and their kin, and of Fedora";
    let unknown = |what: String| Err(Found::new(1, what, known));
    match (distribution, version.split('.').next().unwrap_or_default()) {
        ("fedora", _) => Ok("fedora"),
        (name, "9") if EL.contains(&name) => Ok("el9"),
        (name, "10") if EL.contains(&name) => Ok("el10"),
        ("", _) => {
            unknown("the profile does not say which distribution it installs (`os.distribution`)".into())
        }
        (name, version) => {
            unknown(format!("unknown release: {name} {version} is not one that reads kickstart here"))
        }
    }
}

/// A word of the table: a name, and the releases that have it.
fn has(word: &str, name: &str, release: &str) -> Option<bool> {
    let (own, releases) = word.split_once('@').map_or((word, None), |(own, releases)| (own, Some(releases)));
    (own == name).then(|| releases.is_none_or(|releases| releases.split(',').any(|each| each == release)))
}

fn commands() -> impl Iterator<Item = Vec<&'static str>> {
    TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect())
}

pub(super) fn lint(text: &str, distribution: &str, version: &str) -> Vec<Found> {
    let release = match release(distribution, version) {
        Ok(release) => release,
        Err(found) => return vec![found],
    };
    let mut found = Vec::new();
    let mut section: Option<(usize, &str)> = None;
    let mut seen: Vec<&str> = Vec::new();
    let mut source = false;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let Some(word) = line.split_whitespace().next() else { continue };
        if let Some((begun, name)) = section {
            if word == "%end" {
                section = None;
            } else if word.starts_with('%') && SECTIONS.contains(&word) && word != "%include" {
                found.push(Found::new(begun, format!("`{name}` has no `%end`"), ""));
                section = Some((number, word));
            }
            continue;
        }
        if word.starts_with('#') {
            continue;
        }
        if word.starts_with('%') {
            if word == "%end" {
                found.push(Found::new(number, "`%end` without a section", ""));
            } else if !SECTIONS.contains(&word) {
                found.push(Found::new(
                    number,
                    format!("there is no section `{word}`"),
                    nearest(word, SECTIONS),
                ));
            }
            section = (word != "%include" && word != "%end").then_some((number, word));
            continue;
        }
        seen.push(word);
        source |= [
            "cdrom",
            "url",
            "nfs",
            "harddrive",
            "hmc",
            "liveimg",
            "ostreesetup",
            "ostreecontainer",
            "bootc",
            "rhsm",
        ]
        .contains(&word);
        command(line, word, number, release, &mut found);
    }
    if let Some((begun, name)) = section {
        found.push(Found::new(begun, format!("`{name}` has no `%end`"), ""));
    }
    let last = text.lines().count().max(1);
    for (words, what) in NEEDED {
        if !words.iter().any(|word| seen.contains(word)) {
            let message = format!("none of {} is there: Anaconda would ask {what}", words.join(", "));
            found.push(Found::new(last, message, ""));
        }
    }
    if !source {
        found.push(Found::new(
            last,
            "no source of packages is named (cdrom, url, …): Anaconda would ask for it",
            "",
        ));
    }
    found
}

fn command(line: &str, word: &str, number: usize, release: &str, found: &mut Vec<Found>) {
    let mut there = None;
    for words in commands() {
        if let Some(first) = words.first()
            && let Some(here) = has(first, word, release)
        {
            there = Some((here, words));
            break;
        }
    }
    let Some((here, words)) = there else {
        let names: Vec<&str> = commands().filter_map(|words| words.first()?.split('@').next()).collect();
        found.push(Found::new(number, format!("kickstart has no command `{word}`"), nearest(word, &names)));
        return;
    };
    if !here {
        let message = format!("`{word}` is no command of this release's kickstart ({release})");
        found.push(Found::new(number, message, "pykickstart's `ksvalidator` says since when"));
        return;
    }
    values(line, word, number, release, found);
    for option in options(line) {
        let name = option.split('=').next().unwrap_or(&option);
        let known = words.iter().skip(1).find_map(|word| has(word, name, release));
        if known != Some(true) {
            let names: Vec<&str> = words.iter().skip(1).filter_map(|word| word.split('@').next()).collect();
            let message = match known {
                Some(_) => format!("`{word}` of this release ({release}) has no option `--{name}`"),
                None => format!("`{word}` has no option `--{name}`"),
            };
            found.push(Found::new(number, message, nearest(name, &names)));
        }
    }
}

/// What is wrong with the values of a command that the release has.
fn values(line: &str, word: &str, number: usize, release: &str, found: &mut Vec<Found>) {
    let words = words(line);
    let empty = words.iter().skip(1).all(|(word, _)| word.is_empty());
    if let Some((_, help)) = NOT_ALONE.iter().find(|(name, _)| *name == word)
        && empty
    {
        found.push(Found::new(number, format!("`{word}` says nothing"), format!("such as `{help}`")));
    }
    for (_, option, values) in VALUES.iter().filter(|(command, ..)| *command == word) {
        let given = words.iter().enumerate().find_map(|(index, (word, quoted))| {
            let rest = word.strip_prefix("--").filter(|_| !*quoted)?.strip_prefix(option)?;
            match rest.strip_prefix('=') {
                Some(value) => Some(value),
                None if rest.is_empty() => words.get(index + 1).map(|(value, _)| value.as_str()),
                None => None,
            }
        });
        let known: Vec<&str> = values
            .iter()
            .filter_map(|value| {
                has(value, value.split('@').next().unwrap_or_default(), release)
                    .filter(|here| *here)
                    .and_then(|_| value.split('@').next())
            })
            .collect();
        if let Some(given) = given
            && !known.contains(&given.to_lowercase().as_str())
        {
            let message = format!("`--{option}` of `{word}` is one of {}, not `{given}`", known.join(", "));
            found.push(Found::new(number, message, nearest(given, &known)));
        }
    }
}

/// The options of a line, without their dashes; what stands in quotes is none.
fn options(line: &str) -> Vec<String> {
    let option =
        |(word, quoted): (String, bool)| word.strip_prefix("--").filter(|_| !quoted).map(str::to_owned);
    words(line).into_iter().filter_map(option).collect()
}

/// The words of a line without their quotes, and whether they began with one; a remark is none.
fn words(line: &str) -> Vec<(String, bool)> {
    let mut out = Vec::new();
    let (mut word, mut quote, mut quoted_start) = (String::new(), None, false);
    let mut finish = |word: &mut String, quoted: &mut bool| {
        if !word.is_empty() || *quoted {
            out.push((std::mem::take(word), *quoted));
        }
        *quoted = false;
    };
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.push(c),
            None if matches!(c, '"' | '\'') => {
                quoted_start |= word.is_empty();
                quote = Some(c);
            }
            None if c == '#' && word.is_empty() && !quoted_start => break,
            None if c.is_whitespace() => finish(&mut word, &mut quoted_start),
            None => word.push(c),
        }
    }
    finish(&mut word, &mut quoted_start);
    out
}
