//! Real bridges with DHCP, for what needs a real network: guests with addresses of their own, several adapters, a bridge
//! without DHCP, an address that changes.
//!
//! They can be made only where the process may do so, as in the network namespace of `cargo lab`. Bridge number B of the
//! lab that has claimed X is `198.19.X.(64·B)/26`; the host is its first address, `dnsmasq` gives out the others.
//! Devices bear the lab's number, for labs share the namespace.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::images::command::{command, run};

/// Most bridges of a lab.
const MOST: usize = 4;
/// Addresses of a bridge.
const SPAN: u8 = 64;
/// How long the DHCP server may take to listen.
const START: Duration = Duration::from_secs(30);

/// The bridges of a lab. Dropping them removes them.
#[derive(Debug)]
pub struct Bridges {
    octet: u8,
    names: Vec<String>,
    folder: PathBuf,
    dhcp: Option<Child>,
}

impl Bridges {
    /// Makes a bridge for each name; those of `silent` get no DHCP. `folder` keeps leases.
    ///
    /// # Errors
    /// There are too many, or the devices or the DHCP server can't be had.
    pub fn make(octet: u8, names: &[String], silent: &[String], folder: &Path) -> anyhow::Result<Self> {
        ensure!(names.len() <= MOST, "a lab with real bridges has at most {MOST}");
        fs::create_dir_all(folder.join("hosts"))?;
        let mut bridges = Bridges { octet, names: names.to_owned(), folder: folder.to_owned(), dhcp: None };
        for number in 0..names.len() {
            let (device, address) = (bridges.device(number), format!("{}/26", bridges.address(number, 1)));
            ip(&["link", "add", &device, "type", "bridge", "stp_state", "0", "forward_delay", "0"])
                .context("a bridge can't be made: cargo lab's network namespace is where it can")?;
            ip(&["address", "add", &address, "dev", &device])?;
            ip(&["link", "set", &device, "up"])?;
        }
        bridges.start_dhcp(silent)?;
        Ok(bridges)
    }

    /// The device of a bridge.
    fn device(&self, number: usize) -> String {
        format!("lab{}br{number}", self.octet)
    }

    fn address(&self, number: usize, last: u8) -> Ipv4Addr {
        let base = u8::try_from(number).unwrap_or(0).saturating_mul(SPAN);
        Ipv4Addr::new(198, 19, self.octet, base + last)
    }

    /// The host's address on the first bridge.
    pub fn host(&self) -> Ipv4Addr {
        self.address(0, 1)
    }

    fn leases(&self) -> PathBuf {
        self.folder.join("leases")
    }

    fn start_dhcp(&mut self, silent: &[String]) -> anyhow::Result<()> {
        let mut dnsmasq = command("dnsmasq");
        // No DNS, no configuration of the machine's, no other user: the namespace has none.
        dnsmasq.args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root"]);
        dnsmasq.args(["--bind-interfaces", "--except-interface=lo", "--dhcp-authoritative", "--no-ping"]);
        dnsmasq.arg(format!("--dhcp-hostsdir={}", self.folder.join("hosts").display()));
        dnsmasq.arg(format!("--dhcp-leasefile={}", self.leases().display())).arg("--pid-file=");
        let speaking = (0..self.names.len()).filter(|number| !silent.contains(&self.names[*number]));
        let speaking: Vec<usize> = speaking.collect();
        if speaking.is_empty() {
            return Ok(());
        }
        for number in speaking {
            let (first, last) = (self.address(number, 10), self.address(number, SPAN - 2));
            dnsmasq.arg(format!("--interface={}", self.device(number)));
            dnsmasq.arg(format!("--dhcp-range={first},{last},255.255.255.192,1h"));
        }
        let log = self.folder.join("dnsmasq.log");
        let mut child = dnsmasq
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()
            .context("dnsmasq can't be run (Debian's package dnsmasq-base)")?;
        let started = Instant::now();
        // It says `started` once its sockets are open.
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if said.contains("started") {
                break;
            }
            if child.try_wait()?.is_some() || started.elapsed() > START {
                let _ = child.kill();
                let _ = child.wait();
                bail!("dnsmasq does not start:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.dhcp = Some(child);
        Ok(())
    }

    /// A tap device on a bridge for adapter `net` of the VM in a slot; it is there already when the VM has run before.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn tap(&self, bridge: &str, slot: u8, net: &str) -> Result<String, String> {
        let number = self.names.iter().position(|name| name == bridge);
        let number = number.ok_or_else(|| format!("bridge '{bridge}' does not exist"))?;
        let tap = format!("lab{}s{slot}n{}", self.octet, net.trim_start_matches("net"));
        let failed = |error: anyhow::Error| format!("can't set up {tap}: {error:#}");
        if ip(&["link", "show", &tap]).is_err() {
            ip(&["tuntap", "add", "dev", &tap, "mode", "tap"]).map_err(failed)?;
        }
        ip(&["link", "set", &tap, "master", &self.device(number), "up"]).map_err(failed)?;
        Ok(tap)
    }

    /// The address that was given to an adapter last.
    pub fn address_of(&self, mac: &str) -> Option<Ipv4Addr> {
        let leases = fs::read_to_string(self.leases()).unwrap_or_default();
        // TIME MAC ADDRESS NAME ID
        let mut own = leases.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (known, address) = (words.next()?, words.next()?);
            if known.eq_ignore_ascii_case(mac) { address.parse().ok() } else { None }
        });
        own.next_back()
    }

    /// Gives an adapter on the first bridge another address from its next question on.
    ///
    /// # Errors
    /// The note for the DHCP server can't be written.
    pub fn move_address(&self, mac: &str) -> anyhow::Result<Ipv4Addr> {
        let taken = fs::read_to_string(self.leases()).unwrap_or_default();
        let free = (10..SPAN - 1).rev().map(|last| self.address(0, last));
        let mut free = free.filter(|address| !taken.contains(&format!(" {address} ")));
        let address = free.next().context("every address is taken")?;
        // A file is read when it appears, so it must appear whole; one that changes is read again.
        let (name, file) = (mac.replace(':', ""), self.folder.join("hosts"));
        fs::write(self.folder.join(&name), format!("{mac},{address}\n"))?;
        fs::rename(self.folder.join(&name), file.join(&name))?;
        Ok(address)
    }
}

impl Drop for Bridges {
    fn drop(&mut self) {
        if let Some(child) = &mut self.dhcp {
            let _ = child.kill();
            let _ = child.wait();
        }
        let taps = ip(&["-o", "link", "show", "type", "tun"]).unwrap_or_default();
        let own = format!("lab{}s", self.octet);
        let taps =
            taps.lines().filter_map(|line| line.split(": ").nth(1)).filter(|tap| tap.starts_with(&own));
        let bridges = (0..self.names.len()).map(|number| self.device(number));
        for device in taps.map(str::to_owned).chain(bridges) {
            // What is gone already is well gone.
            let _ = ip(&["link", "delete", &device]);
        }
    }
}

fn ip(words: &[&str]) -> anyhow::Result<String> {
    run(command("ip").args(words))
}
