//! A table of a TOML file gets other values: what stays the same keeps its place and its form, and all remarks stay. Pure.

use toml_edit::{Decor, Document, DocumentMut, Item, Key, RawString, Table, Value};

/// The two parts of a table's header.
type Path<'p> = [&'p str; 2];

/// A file whose table has the values of `wanted`, a document with that table alone. Remarks of what goes stand at the end of
/// the table, then those at the end of `wanted`; lines for which `is_ours` holds go. `None` when the file can't be read,
/// or the table has no header of its own.
pub fn replaced(
    existing: &str,
    path: Path<'_>,
    wanted: &str,
    is_ours: impl Fn(&str) -> bool,
) -> Option<String> {
    let (before, region, after) = apart(existing, path)?;
    let region: String = region.split_inclusive('\n').filter(|line| !is_ours(line.trim())).collect();
    let (old, new) = (values(&region, path)?, values(wanted, path)?);
    let mut there: DocumentMut = region.parse().ok()?;
    let mut wanted: DocumentMut = wanted.parse().ok()?;
    let end = words(wanted.trailing()).to_owned();
    let (table, wanted) = (table_of(&mut there, path)?, table_of(&mut wanted, path)?);
    let mut left = Vec::new();
    let keys: Vec<String> = table.iter().map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        if new.contains_key(&key) && old.get(&key) == new.get(&key) {
            continue;
        }
        if let (Some(Item::Value(value)), Some(Item::Value(other))) = (table.get_mut(&key), wanted.get(&key))
        {
            inside(value, &mut left);
            let decor = std::mem::take(value.decor_mut());
            *value = other.clone();
            *value.decor_mut() = decor;
        } else if let Some((key, item)) = table.remove_entry(&key) {
            of_entry(&key, &item, &mut left);
        }
    }
    for (key, item) in wanted.iter() {
        if !table.contains_key(key) {
            table.insert(key, item.clone());
        }
    }
    let own = words(there.trailing()).trim_end();
    let mut trailing = if own.is_empty() { String::new() } else { format!("{own}\n") };
    left.iter().for_each(|remark| trailing.extend([remark.as_str(), "\n"]));
    there.set_trailing(trailing + &end);
    let gap = if after.is_empty() { "" } else { "\n" };
    Some(format!("{before}{there}{gap}{after}"))
}

/// What is before a table, the table with those below it, and what is after them.
fn apart<'t>(text: &'t str, [first, second]: Path<'_>) -> Option<(&'t str, &'t str, &'t str)> {
    let document = Document::parse(text).ok()?;
    let table = document.as_table().get(first)?.as_table()?.get(second)?.as_table()?;
    let start = header(table)?;
    let (mut all, mut below) = (Vec::new(), Vec::new());
    headers(document.as_table(), &mut all);
    headers(table, &mut below);
    let next = all.into_iter().filter(|at| *at > start && !below.contains(at)).min();
    let end = next.unwrap_or(text.len());
    let region = text.get(start..end)?;
    // Remarks that stand right above the next table, apart from this one, are that one's.
    let is_remark = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let apart = region.rfind("\n\n").map(|at| at + 2);
    let apart = apart.filter(|at| next.is_some() && region.get(*at..).unwrap_or("").lines().all(is_remark));
    let end = apart.map_or(end, |at| start + at);
    Some((text.get(..start)?, text.get(start..end)?, text.get(end..)?))
}

/// Where a table's header begins; `None` for one without.
fn header(table: &Table) -> Option<usize> {
    let own = !table.is_implicit() && !table.is_dotted();
    table.span().filter(|_| own).map(|span| span.start)
}

fn headers(table: &Table, into: &mut Vec<usize>) {
    for (_, item) in table {
        let tables: Vec<&Table> = match item {
            Item::Table(table) => vec![table],
            Item::ArrayOfTables(tables) => tables.iter().collect(),
            Item::None | Item::Value(_) => Vec::new(),
        };
        for table in tables {
            into.extend(header(table));
            headers(table, into);
        }
    }
}

/// What a table says, whatever its form.
fn values(text: &str, [first, second]: Path<'_>) -> Option<toml::Table> {
    let whole: toml::Table = text.parse().ok()?;
    whole.get(first)?.get(second)?.as_table().cloned()
}

fn table_of<'d>(document: &'d mut DocumentMut, [first, second]: Path<'_>) -> Option<&'d mut Table> {
    document.as_table_mut().get_mut(first)?.as_table_mut()?.get_mut(second)?.as_table_mut()
}

fn words(raw: &RawString) -> &str {
    raw.as_str().unwrap_or_default()
}

fn of_raw(raw: &RawString, into: &mut Vec<String>) {
    into.extend(words(raw).lines().map(str::trim).filter(|line| line.starts_with('#')).map(str::to_owned));
}

fn of_decor(decor: &Decor, into: &mut Vec<String>) {
    decor.prefix().into_iter().chain(decor.suffix()).for_each(|raw| of_raw(raw, into));
}

/// The remarks of a key and all that it holds.
fn of_entry(key: &Key, item: &Item, into: &mut Vec<String>) {
    of_decor(key.leaf_decor(), into);
    match item {
        Item::Value(value) => {
            inside(value, into);
            of_decor(value.decor(), into);
        }
        Item::Table(table) => of_table(table, into),
        Item::ArrayOfTables(tables) => tables.iter().for_each(|table| of_table(table, into)),
        Item::None => {}
    }
}

fn of_table(table: &Table, into: &mut Vec<String>) {
    of_decor(table.decor(), into);
    let entries = table.iter().filter_map(|(key, _)| table.get_key_value(key));
    entries.for_each(|(key, item)| of_entry(key, item, into));
}

/// The remarks within a value of several lines.
fn inside(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Array(array) => {
            for each in array {
                inside(each, into);
                of_decor(each.decor(), into);
            }
            of_raw(array.trailing(), into);
        }
        Value::InlineTable(table) => {
            let entries = table.iter().filter_map(|(key, _)| table.get_key_value(key));
            entries.for_each(|(key, item)| of_entry(key, item, into));
            of_raw(table.trailing(), into);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "# ours\n[targets.\"pve\"] # the cluster in the cellar\n# ask ops before\nurl = \"https://a#b:8006\"  # old \"name\"\n\
                       bridge = 'vmbr0'\nnodes = [\n  \"pve1\", # the small one\n]\n# rack 3\npool = \"ci\"   # theirs\n# the end\n";

    fn with(wanted: &str) -> String {
        replaced(OLD, ["targets", "pve"], wanted, |line| line == "# old proposal").expect("it has that table")
    }

    #[test]
    fn remarks_stay_at_their_keys_and_those_of_what_goes_stand_at_the_end() {
        let new = with(
            "[targets.pve]\nurl = \"https://c:8006\"\nnodes = \"auto\"\nbridge = \"vmbr7\"\nrole = \"B\"\n# vmids\n",
        );
        let expected = "# ours\n[targets.\"pve\"] # the cluster in the cellar\n# ask ops before\nurl = \"https://c:8006\"  # old \"name\"\n\
                        bridge = \"vmbr7\"\nnodes = \"auto\"\nrole = \"B\"\n# the end\n# the small one\n# rack 3\n# theirs\n# vmids\n";
        assert_eq!(new, expected);
    }

    #[test]
    fn what_says_the_same_keeps_its_form_and_its_place() {
        let same = "[targets.pve]\nnodes = [\"pve1\"]\nurl = \"https://c:8006\"\npool = \"ci\"\nbridge = \"vmbr0\"\n";
        assert_eq!(with(same), OLD.replace("https://a#b:8006", "https://c:8006"));
    }

    #[test]
    fn other_tables_stay_letter_for_letter_and_ones_own_old_lines_go() {
        let others = "x = 1 # first\n\n[a]\n'odd' = [ 1,\n 2 ]\n\n";
        let next = "# of the next\n  [targets.local]   # here\ntype='qemu'\n[[b]]\nx = \"\"\"\n[targets.pve]\n\"\"\"\n";
        let text = format!(
            "{others}[targets.pve]\npool = \"a\"\n# old proposal\n[targets.pve.seed] # by hand\nports = \"1-2\"\n\n{next}"
        );
        let new = replaced(&text, ["targets", "pve"], "[targets.pve]\npool = \"b\"\n", |line| {
            line == "# old proposal"
        });
        assert_eq!(new, Some(format!("{others}[targets.pve]\npool = \"b\"\n# by hand\n\n{next}")));
    }

    #[test]
    fn a_table_without_a_header_of_its_own_is_left_to_people() {
        for text in [
            "targets.pve = { type = \"qemu\" }\n",
            "[targets]\npve.type = \"qemu\"\n",
            "[targets.pve.seed]\nports = \"1-2\"\n",
            "[targets.other]\n",
            "[targets.pve\n",
        ] {
            assert_eq!(replaced(text, ["targets", "pve"], "[targets.pve]\n", |_| false), None, "{text}");
        }
    }
}
