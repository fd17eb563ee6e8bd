//! Windows' answer files: passes, components, where each component may stand, and what each knows.
//!
//! Facts from Microsoft's "Unattended Windows Setup Reference": each component's page names the passes in which it is
//! valid, and its child elements.

use super::xml::{Element, parse};
use super::{Found, nearest};

const NAMESPACE: &str = "urn:schemas-microsoft-com:unattend";
const WCM: &str = "http://schemas.microsoft.com/WMIConfig/2002/State";
const PASSES: [&str; 7] =
    ["windowsPE", "offlineServicing", "generalize", "specialize", "auditSystem", "auditUser", "oobeSystem"];

/// A component: its name, the passes where it is valid, its settings there.
type Component = (&'static str, &'static [&'static str], &'static [&'static str]);

const COMPONENTS: &[Component] = &[
    (
        "Microsoft-Windows-International-Core-WinPE",
        &["windowsPE"],
        &[
            "InputLocale",
            "LayeredDriver",
            "SetupUILanguage",
            "SystemLocale",
            "UILanguage",
            "UILanguageFallback",
            "UserLocale",
        ],
    ),
    (
        "Microsoft-Windows-International-Core",
        &["specialize", "oobeSystem"],
        &["InputLocale", "SystemLocale", "UILanguage", "UILanguageFallback", "UserLocale"],
    ),
    ("Microsoft-Windows-PnpCustomizationsWinPE", &["windowsPE"], &["DriverPaths"]),
    ("Microsoft-Windows-PnpCustomizationsNonWinPE", &["auditSystem", "offlineServicing"], &["DriverPaths"]),
    (
        "Microsoft-Windows-PnpSysprep",
        &["generalize"],
        &["DoNotCleanUpNonPresentDevices", "PersistAllDeviceInstalls"],
    ),
    (
        "Microsoft-Windows-Setup",
        &["windowsPE"],
        &[
            "ComplianceCheck",
            "Diagnostics",
            "DiskConfiguration",
            "Display",
            "DynamicUpdate",
            "EnableFirewall",
            "EnableNetwork",
            "ImageInstall",
            "LogPath",
            "PageFile",
            "Restart",
            "RunAsynchronous",
            "RunSynchronous",
            "UpgradeData",
            "UseConfigurationSet",
            "UserData",
            "WindowsDeploymentServices",
        ],
    ),
    (
        "Microsoft-Windows-Shell-Setup",
        &["generalize", "specialize", "auditSystem", "auditUser", "oobeSystem"],
        &[
            "AutoLogon",
            "BluetoothTaskbarIconEnabled",
            "ComputerName",
            "ConvertibleSlateModePromptPreference",
            "CopyProfile",
            "DesktopOptimization",
            "DisableAutoDaylightTimeSet",
            "Display",
            "DoNotCleanTaskBar",
            "FirstLogonCommands",
            "FolderLocations",
            "LogonCommands",
            "NotificationArea",
            "OEMInformation",
            "OEMName",
            "OEMWelcomeCenter",
            "OOBE",
            "OfflineUserAccounts",
            "ProductKey",
            "RegisteredOrganization",
            "RegisteredOwner",
            "ShowPowerButtonOnStartScreen",
            "ShowWindowsLive",
            "SignInMode",
            "StartPanelOff",
            "StartTiles",
            "TaskbarLinks",
            "Themes",
            "TimeZone",
            "UserAccounts",
            "VisualEffects",
            "WindowsFeatures",
        ],
    ),
    (
        "Microsoft-Windows-Deployment",
        &["specialize", "auditUser", "generalize", "oobeSystem", "auditSystem"],
        &["ExtendOSPartition", "Generalize", "Reseal", "RunAsynchronous", "RunSynchronous"],
    ),
    ("Microsoft-Windows-TCPIP", &["windowsPE", "specialize"], &["Interfaces", "IcmpRedirectsEnabled"]),
    (
        "Microsoft-Windows-DNS-Client",
        &["windowsPE", "specialize"],
        &["DNSDomain", "DNSSuffixSearchOrder", "Interfaces", "UseDomainNameDevolution"],
    ),
    (
        "Microsoft-Windows-TerminalServices-LocalSessionManager",
        &["generalize", "specialize", "auditSystem", "auditUser", "oobeSystem"],
        &["fDenyTSConnections"],
    ),
    (
        "Networking-MPSSVC-Svc",
        &["specialize"],
        &[
            "DisableStatefulFTP",
            "DisableStatefulPPTP",
            "DomainProfile_EnableFirewall",
            "FirewallGroups",
            "PrivateProfile_EnableFirewall",
            "PublicProfile_EnableFirewall",
        ],
    ),
    ("Microsoft-Windows-Security-SPP-UX", &["specialize"], &["SkipAutoActivation"]),
    ("Microsoft-Windows-Security-SPP", &["generalize"], &["SkipRearm"]),
    ("Microsoft-Windows-LUA-Settings", &["offlineServicing", "specialize"], &["EnableLUA"]),
    (
        "Microsoft-Windows-ServerManager-SvrMgrNc",
        &["specialize", "oobeSystem"],
        &["DoNotOpenServerManagerAtLogon"],
    ),
];

/// What the text of a setting must be.
#[derive(Clone, Copy)]
enum Is {
    Flag,
    Number,
    OneOf(&'static [&'static str]),
}

/// Settings whose values Windows Setup stops at, by the element that they stand in (empty: any); each setting's page of the
/// reference has its values.
const VALUES: &[(&str, &str, Is)] = &[
    ("", "AcceptEula", Is::Flag),
    ("", "WillShowUI", Is::OneOf(&["Always", "OnError", "Never"])),
    ("Disk", "DiskID", Is::Number),
    ("Disk", "WillWipeDisk", Is::Flag),
    ("CreatePartition", "Type", Is::OneOf(&["Primary", "EFI", "Extended", "Logical", "MSR"])),
    ("CreatePartition", "Size", Is::Number),
    ("CreatePartition", "Extend", Is::Flag),
    ("ModifyPartition", "PartitionID", Is::Number),
    ("ModifyPartition", "Active", Is::Flag),
    ("InstallTo", "DiskID", Is::Number),
    ("InstallTo", "PartitionID", Is::Number),
    ("OOBE", "HideEULAPage", Is::Flag),
    ("OOBE", "HideLocalAccountScreen", Is::Flag),
    ("OOBE", "HideOEMRegistrationScreen", Is::Flag),
    ("OOBE", "HideOnlineAccountScreens", Is::Flag),
    ("OOBE", "HideWirelessSetupInOOBE", Is::Flag),
    ("OOBE", "ProtectYourPC", Is::OneOf(&["1", "2", "3"])),
    ("AutoLogon", "Enabled", Is::Flag),
    ("AutoLogon", "LogonCount", Is::Number),
    ("", "PlainText", Is::Flag),
    ("Ipv4Settings", "DhcpEnabled", Is::Flag),
    ("Ipv6Settings", "DhcpEnabled", Is::Flag),
    ("", "PersistAllDeviceInstalls", Is::Flag),
];

/// What every component says of itself ("Component" in the reference).
const IDENTITY: [(&str, &[&str]); 4] = [
    ("processorArchitecture", &["amd64", "x86", "arm64", "wow64"]),
    ("publicKeyToken", &["31bf3856ad364e35"]),
    ("language", &["neutral"]),
    ("versionScope", &["nonSxS"]),
];

pub(super) fn lint(text: &str) -> Vec<Found> {
    let root = match parse(text) {
        Ok(root) => root,
        Err(found) => return vec![found],
    };
    let mut found = Vec::new();
    if root.name != "unattend" || root.attribute("xmlns") != Some(NAMESPACE) {
        let message = format!("the document is not <unattend xmlns=\"{NAMESPACE}\">");
        found.push(Found::new(root.line, message, "Windows Setup passes over other files"));
    }
    let uses_wcm =
        root.all().iter().any(|element| element.attributes.iter().any(|(name, _)| name.starts_with("wcm:")));
    if uses_wcm && !root.all().iter().any(|element| element.attribute("xmlns:wcm") == Some(WCM)) {
        found.push(Found::new(root.line, format!("`wcm:` is used and xmlns:wcm=\"{WCM}\" is missing"), ""));
    }
    let mut passes: Vec<&str> = Vec::new();
    for settings in &root.children {
        if settings.name != "settings" {
            let message = format!("<unattend> has no <{}>", settings.name);
            found.push(Found::new(settings.line, message, nearest(&settings.name, &["settings"])));
            continue;
        }
        let pass = settings.attribute("pass").unwrap_or_default();
        if !PASSES.contains(&pass) {
            let message = format!("there is no pass `{pass}`");
            found.push(Found::new(settings.line, message, nearest(pass, &PASSES)));
        } else if passes.contains(&pass) {
            found.push(Found::new(
                settings.line,
                format!("the pass `{pass}` is there twice"),
                "put both in one",
            ));
        }
        passes.push(pass);
        for component in &settings.children {
            self::component(component, pass, &mut found);
        }
    }
    if passes.contains(&"windowsPE") {
        installs(&root, &mut found);
    }
    found
}

fn component(component: &Element, pass: &str, found: &mut Vec<Found>) {
    if component.name != "component" {
        found.push(Found::new(component.line, format!("<settings> has no <{}>", component.name), ""));
        return;
    }
    let name = component.attribute("name").unwrap_or_default();
    for (attribute, values) in IDENTITY {
        match component.attribute(attribute) {
            Some(value) if values.contains(&value) => {}
            given => {
                let given = given.unwrap_or("nothing");
                let message = format!("{name}: {attribute} is `{given}`, not {}", values.join(" or "));
                found.push(Found::new(
                    component.line,
                    message,
                    "Windows passes over components it can't tell",
                ));
            }
        }
    }
    let Some((_, valid, settings)) = COMPONENTS.iter().find(|(known, ..)| *known == name) else {
        let names: Vec<&str> = COMPONENTS.iter().map(|(name, ..)| *name).collect();
        let message = format!("forge knows no component `{name}`");
        found.push(Found::new(component.line, message, nearest(name, &names)));
        return;
    };
    if !valid.contains(&pass) {
        let message = format!("{name} is not valid in the pass {pass}");
        found.push(Found::new(component.line, message, format!("it is in {}", valid.join(", "))));
    }
    for setting in &component.children {
        if !settings.contains(&setting.name.as_str()) {
            let message = format!("{name} has no setting <{}>", setting.name);
            found.push(Found::new(setting.line, message, nearest(&setting.name, settings)));
        }
    }
    orders(component, found);
    values(component, found);
}

/// Values that are none of those that the setting has. Which letters are capitals is not judged.
fn values(component: &Element, found: &mut Vec<Found>) {
    for parent in component.all() {
        for setting in &parent.children {
            let rule = VALUES.iter().find(|(within, name, _)| {
                *name == setting.name && (within.is_empty() || *within == parent.name)
            });
            let Some((_, name, is)) = rule else { continue };
            let text = setting.text.trim();
            let one_of = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
            let (fits, what, help) = match is {
                Is::Flag => (one_of(&["true", "false"]), "true or false".to_owned(), String::new()),
                Is::Number => (text.parse::<u32>().is_ok(), "a number".to_owned(), String::new()),
                Is::OneOf(words) => (
                    one_of(words),
                    format!("one of {}", words.join(", ")),
                    if text.parse::<u32>().is_ok() { String::new() } else { nearest(text, words) },
                ),
            };
            if !fits {
                found.push(Found::new(setting.line, format!("<{name}> is {what}, not `{text}`"), help));
            }
        }
    }
}

/// `<Order>`s among siblings are numbers that differ.
fn orders(component: &Element, found: &mut Vec<Found>) {
    for parent in component.all() {
        let mut seen: Vec<&str> = Vec::new();
        for (child, order) in parent.children.iter().filter_map(|child| Some((child, child.child("Order")?)))
        {
            let text = order.text.trim();
            if text.parse::<u32>().is_err() || seen.contains(&text) {
                let message = format!("<{}> has the order `{text}`, which is no number or taken", child.name);
                found.push(Found::new(order.line, message, ""));
            }
            seen.push(text);
        }
    }
}

/// What an install without questions needs in the first pass.
fn installs(root: &Element, found: &mut Vec<Found>) {
    let all = root.all();
    let first = |name: &str| all.iter().find(|element| element.name == name).copied();
    for (name, what) in
        [("AcceptEula", "the licence"), ("DiskConfiguration", "the disk"), ("InstallTo", "where to install")]
    {
        if first(name).is_none() {
            found.push(Found::new(
                root.line,
                format!("<{name}> is missing: Windows Setup would ask for {what}"),
                "",
            ));
        }
    }
    match first("MetaData") {
        Some(data) => {
            let key = data.child("Key").map(|key| key.text.trim()).unwrap_or_default();
            let value = data.child("Value").map(|value| value.text.trim()).unwrap_or_default();
            if !matches!(key, "/IMAGE/NAME" | "/IMAGE/INDEX" | "/IMAGE/DESCRIPTION") {
                let message = format!("an image is told by /IMAGE/NAME or /IMAGE/INDEX, not `{key}`");
                found.push(Found::new(data.line, message, ""));
            }
            if value.is_empty() {
                found.push(Found::new(data.line, "the image has no name", "as install.wim names it"));
            }
        }
        None => {
            found.push(Found::new(root.line, "no image is chosen (<MetaData>)", "Windows Setup would ask"));
        }
    }
    let to = first("InstallTo").and_then(|to| to.child("PartitionID")).map(|id| id.text.trim().to_owned());
    let count = all.iter().filter(|element| element.name == "CreatePartition").count();
    if let Some(to) = to
        && count > 0
        && !to.parse::<usize>().is_ok_and(|to| (1..=count).contains(&to))
    {
        let line = first("InstallTo").map_or(1, |element| element.line);
        found.push(Found::new(line, format!("Windows goes to partition {to}, and {count} are made"), ""));
    }
    if let Some(name) = first("ComputerName") {
        // NetBIOS: 15 characters.
        let text = name.text.trim();
        if text.len() > 15 {
            found.push(Found::new(
                name.line,
                format!("the computer name `{text}` has more than 15 characters"),
                "",
            ));
        }
    }
}
