//! Proxmox's API schema as data: finds the route of a path and checks parameters in Proxmox's wording.
//!
//! Invariants: a parameter the schema does not name is refused; values that pass are strings (booleans `1`/`0`)
//! or lists of strings. The data are `schema/pve-9.2.json` and `schema/pve-8.4.json`, made by `schema/compact.py`.

mod answer;
mod format;
mod property;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::config::PveVersion;

pub use format::{cpu_models, split_list};
pub use property::{parse_property_string, parse_with};

static PVE9: LazyLock<Schema> = LazyLock::new(|| Schema::parse(include_str!("../schema/pve-9.2.json")));
static PVE8: LazyLock<Schema> = LazyLock::new(|| Schema::parse(include_str!("../schema/pve-8.4.json")));

/// The routes of the API.
#[derive(Debug)]
pub struct Schema {
    defs: Vec<Value>,
    routes: Vec<Route>,
}

/// One path of the API with its methods.
#[derive(Debug)]
pub struct Route {
    /// The path with its parameters in braces.
    pub template: String,
    segments: Vec<String>,
    methods: BTreeMap<String, Method>,
}

/// One method of a path.
#[derive(Debug)]
pub struct Method {
    properties: Map<String, Value>,
    additional: bool,
    returns: Value,
    /// Whether pveproxy hands it to pvedaemon, which takes the connection and the 30 s limit with it.
    pub protected: bool,
    /// Whether an API token may call it.
    pub allow_token: bool,
    /// The permission check as the schema has it.
    pub permissions: Option<Value>,
}

/// Names and values of a path's parameters.
pub type Captured = Vec<(String, String)>;

/// A checked parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    /// A scalar; booleans are `1` or `0`.
    One(String),
    /// An array.
    Many(Vec<String>),
}

/// Checked parameters of a call, those of the path included.
#[derive(Debug, Clone, Default)]
pub struct Params(pub BTreeMap<String, Param>);

impl Params {
    /// The scalar of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Param::One(text)) => Some(text),
            Some(Param::Many(list)) => list.first().map(String::as_str),
            None => None,
        }
    }

    /// A scalar the schema demands; empty when it is missing all the same.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Whether a boolean is set to true.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name).and_then(|text| text.parse().ok())
    }

    /// The `vmid` of the path.
    pub fn vmid(&self) -> u32 {
        self.number("vmid").unwrap_or(0)
    }

    /// An array (a scalar counts as an array of one).
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Param::One(text)) => vec![text.clone()],
            Some(Param::Many(list)) => list.clone(),
            None => Vec::new(),
        }
    }
}

/// The embedded schema of PVE 9.2, by which configurations are read whatever the release.
pub fn schema() -> &'static Schema {
    &PVE9
}

/// The embedded schema of a release.
pub fn schema_of(version: PveVersion) -> &'static Schema {
    match version {
        PveVersion::V8 => &PVE8,
        PveVersion::V9 => &PVE9,
    }
}

impl Schema {
    fn parse(text: &str) -> Schema {
        let mut document: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        let defs = match document.remove("defs") {
            Some(Value::Array(defs)) => defs,
            _ => Vec::new(),
        };
        let mut routes = Vec::new();
        for (template, methods) in document.get("paths").and_then(Value::as_object).into_iter().flatten() {
            let methods = methods.as_object().into_iter().flatten().map(|(name, entry)| {
                let method = Method {
                    properties: entry["properties"].as_object().cloned().unwrap_or_default(),
                    additional: entry.get("additional").is_some(),
                    returns: entry["returns"].clone(),
                    protected: entry.get("protected").is_some(),
                    allow_token: entry.get("token").is_some(),
                    permissions: entry.get("permissions").cloned(),
                };
                (name.clone(), method)
            });
            routes.push(Route {
                template: template.clone(),
                segments: template.split('/').skip(1).map(str::to_owned).collect(),
                methods: methods.collect(),
            });
        }
        Schema { defs, routes }
    }

    /// Finds the route of a path whose segments are already percent-decoded, and the path's parameters.
    pub fn find(&self, method: &str, path: &[String]) -> Option<(&Route, &Method, Captured)> {
        let mut best: Option<(usize, &Route, Captured)> = None;
        for route in &self.routes {
            let Some((literals, captured)) = route.matches(path) else { continue };
            if best.as_ref().is_none_or(|(most, ..)| literals > *most) {
                best = Some((literals, route, captured));
            }
        }
        let (_, route, captured) = best?;
        Some((route, route.methods.get(method)?, captured))
    }

    /// All routes: method and template.
    #[cfg(test)]
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.routes
            .iter()
            .flat_map(|route| route.methods.keys().map(|method| (method.as_str(), route.template.as_str())))
    }

    /// The schema of a VM's configuration key, by which its JSON type is chosen.
    pub fn config_type(&self, key: &str) -> Option<&str> {
        let route = self.routes.iter().find(|route| route.template == "/nodes/{node}/qemu")?;
        let property = self.property(route.methods.get("POST")?, key)?;
        property.get("type")?.as_str()
    }

    /// Whether a VM's configuration may hold that key.
    pub fn is_config_key(&self, key: &str) -> bool {
        !matches!(key, "vmid" | "node" | "pool" | "start" | "force" | "unique" | "archive" | "storage")
            && self.config_type(key).is_some()
    }

    fn property<'a>(&'a self, method: &'a Method, name: &str) -> Option<&'a Value> {
        let entry = method.properties.get(name).or_else(|| {
            let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let digits = name.get(base.len()..)?;
            let number: usize = digits.parse().ok()?;
            let canonical = number.to_string() == digits;
            (canonical && number < slots(base)).then(|| method.properties.get(&format!("{base}[n]")))?
        })?;
        match entry.as_u64() {
            Some(index) => self.defs.get(usize::try_from(index).ok()?),
            None => Some(entry),
        }
    }

    /// Checks and normalises the parameters of a call.
    ///
    /// # Errors
    /// The `errors` object of Proxmox's 400.
    pub fn verify(&self, method: &Method, given: Map<String, Value>) -> Result<Params, Map<String, Value>> {
        let mut errors = Map::new();
        let mut params = BTreeMap::new();
        for name in method.properties.keys() {
            let Some(property) = self.property(method, name) else { continue };
            if !name.ends_with("[n]") && !is_optional(property) && !given.contains_key(name) {
                errors.insert(name.clone(), "property is missing and it is not optional".into());
            }
        }
        for name in given.keys() {
            let needed = self.property(method, name).and_then(|property| property["requires"].as_str());
            if let Some(needed) = needed.filter(|needed| !given.contains_key(*needed)) {
                errors.insert(needed.to_owned(), format!("missing property required by '{name}'").into());
            }
        }
        for (name, value) in given {
            let Some(property) = self.property(method, &name) else {
                if !method.additional {
                    let text = "property is not defined in schema and the schema does not allow additional properties";
                    errors.insert(name, text.into());
                }
                continue;
            };
            match property::check(&name, property, &value, &mut errors) {
                Some(param) => drop(params.insert(name, param)),
                None => continue,
            }
        }
        if errors.is_empty() { Ok(Params(params)) } else { Err(errors) }
    }
}

impl Route {
    /// The number of literal segments and the captured ones. The last parameter of a storage's content may hold
    /// slashes, as a volume identifier does.
    fn matches(&self, path: &[String]) -> Option<(usize, Captured)> {
        let greedy = self.template.ends_with("/content/{volume}");
        if path.len() < self.segments.len() || (!greedy && path.len() > self.segments.len()) {
            return None;
        }
        let mut captured = Vec::new();
        let mut literals = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) => {
                    let last = index + 1 == self.segments.len();
                    let value = if last && greedy { path[index..].join("/") } else { path[index].clone() };
                    captured.push((name.to_owned(), value));
                }
                None if *segment == path[index] => literals += 1,
                None => return None,
            }
        }
        Some((literals, captured))
    }
}

fn is_optional(property: &Value) -> bool {
    property.get("optional").is_some_and(|optional| optional.as_u64() != Some(0))
}

/// How many slots a numbered key has (qemu-server QemuServer.pm and its Drive, Network and USB modules).
fn slots(base: &str) -> usize {
    match base {
        "ide" | "serial" => 4,
        "sata" => 6,
        "scsi" => 31,
        "virtio" | "hostpci" => 16,
        "net" | "ipconfig" => 32,
        "usb" => 14,
        "numa" => 8,
        "parallel" => 3,
        "unused" => 256,
        "virtiofs" => 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(method: &str, path: &str, given: &Value) -> Result<Params, Map<String, Value>> {
        let segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        let (_, entry, captured) = schema().find(method, &segments).expect("the route exists");
        let mut all = given.as_object().cloned().unwrap_or_default();
        all.extend(captured.into_iter().map(|(name, value)| (name, Value::from(value))));
        schema().verify(entry, all)
    }

    #[test]
    fn parameter_errors_are_worded_as_a_real_server_words_them() {
        let create = "/nodes/pve/qemu";
        let missing_sign =
            "property is not defined in schema and the schema does not allow additional properties";
        let cases = [
            (create, serde_json::json!({"vmid": "x"}), "vmid", "type check ('integer') failed - got 'x'"),
            (
                create,
                serde_json::json!({"vmid": "50"}),
                "vmid",
                "invalid format - value does not look like a valid VM ID\n",
            ),
            (create, serde_json::json!({"vmid": "150", "bogus": "1"}), "bogus", missing_sign),
            (create, serde_json::json!({"name": "a"}), "vmid", "property is missing and it is not optional"),
            (
                create,
                serde_json::json!({"vmid": 100, "name": "forge_build"}),
                "name",
                "invalid format - value does not look like a valid DNS name\n",
            ),
            (
                create,
                serde_json::json!({"vmid": 100, "tags": "a b;%%"}),
                "tags",
                "invalid format - invalid characters in tag\n",
            ),
            (
                create,
                serde_json::json!({"vmid": 100, "bios": "efi"}),
                "bios",
                "value 'efi' does not have a value in the enumeration 'seabios, ovmf'",
            ),
            (
                create,
                serde_json::json!({"vmid": 100, "cpu": "nonsense"}),
                "cpu",
                "invalid format - Built-in cputype 'nonsense' is not defined (missing 'custom-' prefix?)\n",
            ),
            (
                create,
                serde_json::json!({"vmid": 100, "agent": "enabled=maybe"}),
                "agent",
                "invalid format - format error\nagent.enabled: type check ('boolean') failed - got 'maybe'\n",
            ),
            (create, serde_json::json!({"vmid": 100, "scsi31": "local:1"}), "scsi31", missing_sign),
            (
                create,
                serde_json::json!({"vmid": 100, "smbios1": "serial=ds=nocloud;s=x"}),
                "smbios1",
                "invalid format - format error\nsmbios1.serial: value does not match the regex pattern\n",
            ),
        ];
        for (path, given, field, text) in cases {
            let errors = verify("POST", path, &given).expect_err("must be refused");
            assert_eq!(errors.get(field), Some(&Value::from(text)), "{given}");
        }
    }

    #[test]
    fn a_volume_in_the_path_may_hold_slashes() {
        let path: Vec<String> = "/nodes/pve/storage/local/content/local:iso/a.iso"
            .split('/')
            .skip(1)
            .map(str::to_owned)
            .collect();
        let (route, _, captured) = schema().find("GET", &path).expect("found");
        assert_eq!(route.template, "/nodes/{node}/storage/{storage}/content/{volume}");
        assert_eq!(captured[2], ("volume".to_owned(), "local:iso/a.iso".to_owned()));
    }

    #[test]
    fn what_is_right_passes_and_booleans_become_numbers() {
        let given = serde_json::json!({"vmid": 9000, "onboot": "yes", "scsi0": "local:1,discard=on", "net0": "virtio,bridge=vmbr0",
            "smbios1": "uuid=205ae1a7-d182-4612-b0db-5061f633f2d3,base64=1,serial=ZHM9bm9jbG91ZDtzPXg="});
        let params = verify("POST", "/nodes/pve/qemu", &given).expect("accepted");
        assert!(params.flag("onboot"));
        assert_eq!(params.vmid(), 9000);
    }
}
