//! `forge init proxmox`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::REFUSED;
use super::options::Global;
use crate::backends::ROLE;
use crate::event::Redactor;
use crate::init::{Destination, InitError, Options, Summary, Talk, run};
use crate::ui;

/// Exit code: something was changed, and then it failed.
const FAILED: u8 = 1;

/// What to make ready.
#[derive(Clone, Debug, Subcommand)]
pub enum InitCommand {
    /// Makes user, least-privilege role, token and site file for a Proxmox VE, over SSH or by its API
    Proxmox(Box<ProxmoxArgs>),
}

/// Options of `forge init proxmox`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What is there already is used as it is; a second run changes nothing. The token's secret goes into the file of \
--env-file, or into .NAME.token beside the site file, which only you may read.

Login by SSH: the key of --ssh-key (FORGE_SSH_PASSPHRASE), else ssh-agent's, then those in ~/.ssh, else the password in \
FORGE_SSH_PASSWORD or typed. With --api: the password in PROXMOX_PASSWORD or typed.")]
pub struct ProxmoxArgs {
    /// A node, and who logs in there: [USER@]HOST[:PORT] [user: root]
    #[arg(value_name = "[USER@]HOST")]
    destination: Destination,
    /// By the API alone, with a password: for sites without SSH
    #[arg(long)]
    api: bool,
    /// Prints the commands and files, and changes nothing
    #[arg(long)]
    dry_run: bool,
    /// The target's name in the site file
    #[arg(long, value_name = "NAME", default_value = "pve", value_parser = bare_key)]
    name: String,
    /// The user that builds
    #[arg(long, value_name = "USER@REALM", default_value = "forge@pve", value_parser = user_id)]
    user: String,
    /// Its token
    #[arg(long, value_name = "NAME", default_value = "build", value_parser = token_name)]
    token: String,
    /// Its role
    #[arg(long, value_name = "NAME", default_value = ROLE, value_parser = role_name)]
    role: String,
    /// Privileges of the role besides those that forge needs
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    privileges: Vec<String>,
    /// A pool for build VMs: the role is given on it instead of on all VMs
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// The VMs that builds clone, when there is a pool
    #[arg(long = "boot-vm", value_name = "VMID,…", value_delimiter = ',', requires = "pool")]
    boot_vms: Vec<u32>,
    /// Gives the role on these paths instead of on VMs, storages and bridge; `/` is everywhere
    #[arg(long = "path", value_name = "PATH,…", value_delimiter = ',')]
    paths: Vec<String>,
    /// The nodes to build on, or auto [default: the one that answers]
    #[arg(long, value_name = "NODE,…", value_delimiter = ',')]
    nodes: Vec<String>,
    /// The storage for disks [default: local-lvm, local-zfs, or the first that takes images]
    #[arg(long = "storage-disks", value_name = "NAME")]
    disks: Option<String>,
    /// The storage for install media [default: local, or the first that takes them]
    #[arg(long = "storage-isos", value_name = "NAME")]
    isos: Option<String>,
    /// The storage for archives of templates, for `forge prune --archive`: the role gets VM.Backup for it [default: none]
    #[arg(long = "storage-archives", value_name = "NAME")]
    archives: Option<String>,
    /// The bridge [default: the first with a gateway, vmbr0, or the first]
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
    /// The VMIDs that builds may use (9001-9099)
    #[arg(long, value_name = "FIRST-LAST")]
    vmids: Option<String>,
    /// The API's address [default: https://HOST:8006]
    #[arg(long, value_name = "URL", value_parser = https)]
    url: Option<String>,
    /// The SHA-256 fingerprint of the API's certificate, when it is known
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
    /// The fingerprint of the SSH host key, when it is known (SHA256:…)
    #[arg(long, value_name = "SHA256:…", conflicts_with = "api")]
    host_key: Option<String>,
    /// A private key to log in with
    #[arg(long, value_name = "FILE", conflicts_with = "api")]
    ssh_key: Option<PathBuf>,
    /// Makes a token anew that is there; its old secret is of no use from then on
    #[arg(long)]
    rotate_token: bool,
    /// Replaces other settings of this target in the files
    #[arg(long)]
    force: bool,
    /// The port of the seed server, for PACKER_HTTP_PORT in the file of variables
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Where the evidence goes
    #[arg(long, value_name = "DIR", default_value = "output")]
    output: PathBuf,
}

fn name_of(text: &str, more: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

fn bare_key(text: &str) -> Result<String, String> {
    name_of(text, "-_").then(|| text.to_owned()).ok_or_else(|| "letters, digits, - and _ only".to_owned())
}

/// As pve-access-control has it.
fn role_name(text: &str) -> Result<String, String> {
    name_of(text, "-_.").then(|| text.to_owned()).ok_or_else(|| "letters, digits, - _ and . only".to_owned())
}

fn user_id(text: &str) -> Result<String, String> {
    let sound =
        text.rsplit_once('@').is_some_and(|(name, realm)| name_of(name, "-_.+@") && name_of(realm, "-_."));
    sound.then(|| text.to_owned()).ok_or_else(|| "it has the form USER@REALM, such as forge@pve".to_owned())
}

/// As pve-access-control has it: two characters or more, the first a letter.
fn token_name(text: &str) -> Result<String, String> {
    let sound =
        text.len() >= 2 && text.starts_with(|c: char| c.is_ascii_alphabetic()) && name_of(text, "-_.");
    sound.then(|| text.to_owned()).ok_or_else(|| {
        "a letter, then letters, digits, - _ and . ; two characters at least, and no USER@REALM!".to_owned()
    })
}

fn https(text: &str) -> Result<String, String> {
    text.starts_with("https://").then(|| text.to_owned()).ok_or_else(|| "https://HOST:8006".to_owned())
}

impl ProxmoxArgs {
    fn options(&self, global: &Global) -> Options {
        let args = self.clone();
        Options {
            destination: args.destination,
            api: args.api,
            target: args.name,
            url: args.url,
            fingerprint: args.fingerprint,
            host_key: args.host_key,
            ssh_key: args.ssh_key,
            user: args.user,
            token: args.token,
            role: args.role,
            privileges: args.privileges,
            pool: args.pool,
            boot_vms: args.boot_vms,
            paths: args.paths,
            nodes: args.nodes,
            disks: args.disks,
            isos: args.isos,
            archives: args.archives,
            bridge: args.bridge,
            vmids: args.vmids,
            http_port: args.http_port,
            rotate_token: args.rotate_token,
            force: args.force,
            dry_run: args.dry_run,
            site: global.config.clone().unwrap_or_else(|| PathBuf::from("forge.toml")),
            env_file: global.env_file.clone(),
            output: args.output,
            state: global.state(),
        }
    }
}

/// Makes a target ready; gives the exit code.
pub async fn init(global: &Global, command: &InitCommand) -> u8 {
    let InitCommand::Proxmox(args) = command;
    let redactor = Redactor::default();
    let talk = Talk::new(global.quiet || global.json, redactor.clone());
    match run(&args.options(global), &talk).await {
        Ok(summary) => {
            tell(global, &summary, &talk);
            0
        }
        Err(error) => {
            ui::say(redactor.text(&ui::failure::render_error(&error, error.hints())).trim_end());
            match error {
                InitError::Refused { .. } => REFUSED,
                InitError::Unfinished { .. } => FAILED,
            }
        }
    }
}

fn tell(global: &Global, summary: &Summary, talk: &Talk) {
    if global.json {
        ui::data(&format!("{}\n", serde_json::to_string(summary).unwrap_or_default()));
        return;
    }
    if summary.dry_run {
        // What can be run is data.
        for change in &summary.changes {
            ui::data(&format!("{change}\n"));
        }
    }
    talk.say(&match (summary.unchanged, summary.dry_run) {
        (true, _) => "= nothing to change: everything is as it should be".to_owned(),
        (false, true) => format!("= a dry run: {} changes, nothing was done", summary.changes.len()),
        (false, false) => format!("= {} is ready at {}", summary.token_id, summary.url),
    });
    if let Some(folder) = &summary.evidence {
        talk.say(&format!("    evidence: {}", folder.display()));
    }
}
