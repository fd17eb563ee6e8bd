//! What is Windows' own in a profile, and what is not.

use super::{least, load, sound};
use crate::remote::{Via, WinRmAuth};

/// The least profile of a Windows.
fn windows(more: &str) -> String {
    least(&format!("[os]\nfamily = \"windows\"\n{more}"))
}

#[test]
fn a_script_in_ps1_is_for_powershell_in_a_windows_and_for_its_first_line_elsewhere() {
    let step = "[[provision]]\nscript = \"setup.ps1\"\n[[provision]]\nscripts = [\"a.PS1\", \"b.ps1\"]\n";
    let files =
        |text| [("x.toml", text), ("setup.ps1", "#!/usr/bin/pwsh\n1\n"), ("a.PS1", "1\n"), ("b.ps1", "2\n")];
    let (linux, of_windows) = (least(step), windows(step));
    let power_shells = |text| {
        sound(&files(text)).provision.iter().map(|each| each.power_shell.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(power_shells(&linux), [false; 3]);
    assert_eq!(power_shells(&of_windows), [true; 3]);
}

#[test]
fn windows_users_are_known_by_their_names_in_any_case_and_a_domains_are_not_made() {
    let create = |user: &str| {
        let profile =
            sound(&[("x.toml", &windows(&format!("[access]\nuser = '{user}'\nagent-auth = true\n")))]);
        profile.access.create
    };
    assert!(create("forge") && create("Jörg Meier"));
    for there in ["Administrator", "administrator", "ADMINISTRATOR", "CORP\\builder", "builder@corp.example"]
    {
        assert!(!create(there), "{there}");
    }
    for (user, words) in [
        ("administrator", "Administrator is there already"),
        ("CORP\\builder", "is a domain's user, whom no answer file makes"),
        ("a/b", "is no user name of Windows"),
    ] {
        let text = windows(&format!("[access]\nuser = '{user}'\ncreate = true\n"));
        let (profile, told) = load(&[("x.toml", &text)]);
        assert!(profile.is_none() && told.contains(words), "{told}");
    }
    // Linux has one root, and a user of any other name.
    assert!(sound(&[("x.toml", &least("[access]\nuser = \"administrator\"\n"))]).access.create);
}

#[test]
fn the_port_of_winrm_follows_from_tls_and_one_that_contradicts_it_is_told() {
    let with = |settings: &str| {
        let text = windows(&format!("[access]\nvia = [\"winrm\"]\nwinrm = {{ {settings} }}\n"));
        let (profile, told) = load(&[("x.toml", &text)]);
        (profile.unwrap_or_else(|| panic!("{told}")).access, told)
    };
    let (access, told) = with("auth = \"basic\", use-ssl = true");
    assert_eq!((access.via.as_slice(), access.winrm.auth), ([Via::WinRm].as_slice(), WinRmAuth::Basic));
    assert_eq!((access.winrm.port(), told.as_str()), (5986, ""));
    for (settings, port, words) in [
        ("", 5985, ""),
        ("port = 15985", 15985, ""),
        ("port = 5986, use-ssl = true", 5986, ""),
        ("port = 5986", 5986, "5986 is WinRM's port with TLS"),
        ("port = 5985, use-ssl = true", 5985, "5985 is WinRM's port without TLS"),
        ("auth = \"basic\"", 5985, "go over the network for all to read"),
    ] {
        let (access, told) = with(settings);
        assert_eq!(access.winrm.port(), port, "{settings}");
        assert!(told.contains(words) && told.is_empty() == words.is_empty(), "{settings}: {told}");
    }
}

#[test]
fn windows_provisioners_and_their_settings_are_read_and_nonsense_is_told() {
    let text = windows(
        r#"
[[provision]]
powershell = ["Get-Date", "exit 3010"]
valid-exit-codes = [0, 3010]
execution-policy = "remotesigned"
use-pwsh = true
become = true
[[provision]]
windows-restart = { restart-timeout = "45m", restart-check-command = "Get-Service sshd" }
[[provision]]
windows-update = { filters = ["exclude:$_.Title -like '*Preview*'", "include:$true"], update-limit = 5 }
"#,
    );
    let profile = sound(&[("x.toml", &text)]);
    let script = &profile.provision[0];
    let shell = script.power_shell.as_ref().expect("PowerShell");
    assert_eq!((shell.execution_policy.as_str(), shell.pwsh), ("RemoteSigned", true));
    assert_eq!(script.valid_exit_codes, [0, 3010]);
    let kinds = format!("{:?} {:?}", profile.provision[1].kind, profile.provision[2].kind);
    assert!(kinds.contains("limit: 2700s") && kinds.contains("update_limit: 5"), "{kinds}");
    let wrong = windows(
        "[[provision]]\npowershell = \"1\"\nexecution-policy = \"Often\"\n\
         [[provision]]\nwindows-update = { filters = [\"maybe:$true\"] }\n[[provision]]\nwindows-restart = false\n",
    );
    let (profile, told) = load(&[("x.toml", &wrong)]);
    assert!(profile.is_none());
    for words in ["`Often` is no execution policy", "`maybe:$true` is no filter", "does nothing"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
