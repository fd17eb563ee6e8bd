//! What the installer's kernel is told: where the answers are, and what it must know before it can fetch them.
//!
//! An answer file that comes over the network is read after the network is up, so a static address in it comes too
//! late for the installer itself: it stands on the kernel's line too.

use super::{Answers, Kind};

impl Answers {
    /// The arguments for the kernel of the installer, when its answers are at `url` (ending in `/`).
    ///
    /// With `grub` what GRUB would take for its own is quoted: `;` ends a command there. A kernel that is started
    /// without a boot loader takes them as they are. Empty when the kind reads nothing from there (Windows).
    #[must_use]
    pub fn kernel_arguments(&self, url: &str, hostname: Option<&str>, grub: bool) -> String {
        // cloud-init of 22.4 makes nothing of it without the mode ([`crate::serial`]).
        let seed = crate::serial::smbios_serial(url);
        let seed = if grub { format!("\"{seed}\"") } else { seed };
        let mut words = match self.kind {
            Kind::Nocloud | Kind::Autoinstall => vec!["autoinstall".to_owned(), seed],
            Kind::Kickstart => {
                let fips = self.settings.flag("fips").then(|| "fips=1".to_owned());
                std::iter::once(format!("inst.ks={url}ks.cfg")).chain(fips).collect()
            }
            Kind::Preseed => {
                vec!["auto=true".into(), "priority=critical".into(), format!("url={url}preseed.cfg")]
            }
            Kind::Autoyast => vec![format!("autoyast={url}autoinst.xml")],
            Kind::Agama => self.agama(url),
            Kind::Autounattend => return String::new(),
        };
        words.extend(match self.kind {
            Kind::Preseed => self.netcfg(hostname),
            Kind::Kickstart | Kind::Agama => self.dracut(hostname),
            Kind::Autoyast => self.linuxrc(),
            _ => self.ipconfig(),
        });
        words.join(" ")
    }

    /// Whether the answers are not enough and the installer's kernel must be told something too: from RHEL 10 on a system is in
    /// FIPS mode only when its installer was ("Security hardening" of RHEL 10, "Switching RHEL to FIPS mode").
    #[must_use]
    pub fn needs_kernel_arguments(&self) -> bool {
        let major = self.version.split('.').next().unwrap_or_default();
        self.kind == Kind::Kickstart && self.settings.flag("fips") && !matches!(major, "8" | "9")
    }

    fn given(&self, name: &str) -> Option<&str> {
        Some(self.settings.text(name)).filter(|text| !text.is_empty())
    }

    /// netcfg runs before the answers are fetched (Debian installation guide, B.2.1 and B.4.3): what it asks is answered
    /// here. Several name servers would need blanks, which the installer's kernel line does not carry.
    fn netcfg(&self, hostname: Option<&str>) -> Vec<String> {
        let mut words = vec![format!("hostname={}", hostname.unwrap_or("debian")), "domain=".to_owned()];
        if let Some(interface) = self.given("interface") {
            words.push(format!("interface={interface}"));
        }
        let (address, gateway) = match (self.given("address"), self.given("address6")) {
            (Some(_), _) => (self.settings.static_address("address"), self.given("gateway")),
            (None, Some(_)) => (self.settings.static_address("address6"), self.given("gateway6")),
            (None, None) => return words,
        };
        let Some((address, rest)) = address else { return words };
        words.push("netcfg/disable_autoconfig=true".into());
        match self.given("address") {
            Some(_) => {
                words.push(format!("netcfg/get_ipaddress={address}"));
                words.push(format!("netcfg/get_netmask={rest}"));
            }
            // netcfg takes an IPv6 address with its prefix, and asks for no mask then (netcfg's static.c).
            None => words.push(format!("netcfg/get_ipaddress={address}/{rest}")),
        }
        words.push(format!("netcfg/get_gateway={}", gateway.unwrap_or("none")));
        words.extend(
            self.settings
                .items("nameservers")
                .first()
                .map(|server| format!("netcfg/get_nameservers={server}")),
        );
        words.push("netcfg/confirm_static=true".into());
        words
    }

    /// Agama's own (its doc/boot_arguments.md; "Working with profiles" of its documentation).
    fn agama(&self, url: &str) -> Vec<String> {
        let mut words = vec![format!("inst.auto={url}autoinst.json")];
        words.extend(self.given("mirror").map(|mirror| format!("inst.install_url={mirror}")));
        words.extend(self.given("proxy").map(|proxy| format!("proxy={proxy}")));
        words
    }

    /// dracut.cmdline(7): `ip=CLIENT::GATEWAY:MASK:HOST:INTERFACE:none`, IPv6 addresses in brackets.
    fn dracut(&self, hostname: Option<&str>) -> Vec<String> {
        let (host, interface) = (hostname.unwrap_or_default(), self.given("interface").unwrap_or_default());
        let mut words = Vec::new();
        if let Some((address, mask)) = self.settings.static_address("address") {
            let gateway = self.given("gateway").unwrap_or_default();
            words.push(format!("ip={address}::{gateway}:{mask}:{host}:{interface}:none"));
        }
        if let Some((address, prefix)) = self.settings.static_address("address6") {
            let gateway = self.given("gateway6").map(|each| format!("[{each}]")).unwrap_or_default();
            words.push(format!("ip=[{address}]::{gateway}:{prefix}:{host}:{interface}:none"));
        }
        if words.is_empty() {
            words.extend(self.given("interface").map(|interface| format!("ip={interface}:dhcp")));
            return words;
        }
        words.extend(self.settings.items("nameservers").iter().map(|server| {
            if server.contains(':') {
                format!("nameserver=[{server}]")
            } else {
                format!("nameserver={server}")
            }
        }));
        words
    }

    /// linuxrc's `ifcfg=INTERFACE=ADDRESS/PREFIX,GATEWAY,NAMESERVER` (linuxrc's documentation, "Parameter reference").
    fn linuxrc(&self) -> Vec<String> {
        let addresses: Vec<&str> =
            [self.given("address"), self.given("address6")].into_iter().flatten().collect();
        if addresses.is_empty() {
            return Vec::new();
        }
        let gateways: Vec<&str> =
            [self.given("gateway"), self.given("gateway6")].into_iter().flatten().collect();
        let servers = self.settings.items("nameservers");
        let interface = self.given("interface").unwrap_or("*");
        // Blanks separate several of a kind, so the whole stands in quotes.
        vec![format!(
            "ifcfg=\"{interface}={},{},{}\"",
            addresses.join(" "),
            gateways.join(" "),
            servers.join(" ")
        )]
    }

    /// The initramfs' own `ip=CLIENT::GATEWAY:MASK::INTERFACE:none:DNS0:DNS1` (klibc's ipconfig; the kernel's
    /// nfsroot.txt), IPv4 alone.
    fn ipconfig(&self) -> Vec<String> {
        let Some((address, mask)) = self.settings.static_address("address") else { return Vec::new() };
        let gateway = self.given("gateway").unwrap_or_default();
        let interface = self.given("interface").unwrap_or_default();
        let servers: Vec<&str> = self
            .settings
            .items("nameservers")
            .into_iter()
            .filter(|each| !each.contains(':'))
            .take(2)
            .collect();
        let word = format!("ip={address}::{gateway}:{mask}::{interface}:none:{}", servers.join(":"));
        vec![word.trim_end_matches(':').to_owned()]
    }
}
