//! The keys of a profile.

use forge_console::keymap::Layout;
use forge_machine::IsoDrives;

use super::{Form, Keys};
use crate::config::profile::{AfterInstall, Tested};
use crate::remote::Via;

const SCALAR: Form = Form::Either(&[Form::Text, Form::Whole, Form::Flag]);
const LINES: Form = Form::Either(&[Form::Text, Form::Texts]);
const TEMPLATED: &str = "may use {{ var.NAME }} and {{ env.NAME }}";

pub(super) const ROOT: Keys = &[
    ("schema", Form::Integer(1, 1), "the version of this form: 1"),
    ("extends", Form::Text, "a profile or base that this one lies over; relative to this file"),
    ("name", Form::Text, "lower-case letters, digits, `-` and `.`, 40 at most"),
    ("variables", Form::Map(&VARIABLE), "values that --var, --var-file and FORGE_VAR_NAME give"),
    ("os", OS, "the operating system"),
    ("template", TEMPLATE, "what comes out, on a target with templates"),
    ("output", OUTPUT, "what comes out, on a target that makes files"),
    ("source", SOURCE, "what it starts from"),
    ("vm", VM, "the build VM; what is not said stays as the source has it"),
    ("seed", SEED, "the answers of an unattended set-up, and how the guest gets them"),
    ("boot", BOOT, "what is done on the boot screen"),
    ("access", ACCESS, "who logs in, by what, and on which way"),
    ("provision", Form::Tables(PROVISION), "what runs in the guest, in order"),
    ("seal", Form::Seal, "what is removed before the template is made; each is on unless it is false"),
    ("deadlines", DEADLINES, "how long things may take"),
];

const VARIABLE: Form = Form::Table(&[
    ("type", Form::Word(&["string", "integer", "boolean"]), "what it is; without it, what the default is"),
    ("default", SCALAR, "its value when none is given"),
    ("pattern", Form::Text, "a regular expression for the whole value"),
    ("secret", Form::Flag, "masked in everything that forge prints or keeps"),
    ("description", Form::Text, "what it is for"),
]);

const OS: Form = Form::Table(&[
    ("family", Form::Word(&["linux", "windows"]), ""),
    ("distribution", Form::Text, "`debian`, `rocky`, …"),
    ("version", Form::Text, "`12`, `24.04`, …"),
    ("tested", Form::Word(&Tested::NAMES), "how far it was tried"),
]);

const TEMPLATE: Form = Form::Table(&[
    ("name", Form::Text, "its name; may use {{ date }}, {{ build_number }} and {{ chain_id }}"),
    ("description", Form::Text, "text for its notes; may use what its name may"),
    ("tags", Form::Texts, "its tags, beside those that forge sets"),
    ("test", Form::Flag, "whether it is tried before it is published as `latest`"),
]);

const OUTPUT: Form = Form::Table(&[
    ("formats", Form::Words(&["qcow2", "raw", "vmdk"]), "the formats of the image"),
    ("compress", Form::Flag, "whether they are compressed"),
]);

const MEDIUM_KEYS: Keys = &[
    ("url", Form::Text, TEMPLATED),
    ("urls", Form::Texts, "mirrors, asked in their order"),
    ("file", Form::Text, "a file of this machine, or a volume of the target (local:iso/name.iso)"),
    ("checksum", Form::Text, "sha256:…, or file:https://…/SHA256SUMS"),
];
const ISO_KEYS: Keys = &[
    ("url", Form::Text, TEMPLATED),
    ("urls", Form::Texts, "mirrors, asked in their order"),
    ("file", Form::Text, "a file of this machine, or a volume of the target (local:iso/name.iso)"),
    ("checksum", Form::Text, "sha256:…, or file:https://…/SHA256SUMS"),
    ("slot", Form::Text, "the drive on Proxmox VE: ide0-3, sata0-5, scsi0-30; else the first that is free"),
];
const IMAGE_KEYS: Keys = &[
    ("url", Form::Text, TEMPLATED),
    ("urls", Form::Texts, "mirrors, asked in their order"),
    ("file", Form::Text, "a file of this machine, or a volume of the target"),
    ("checksum", Form::Text, "sha256:…, or file:https://…/SHA256SUMS"),
    ("copy", Form::Flag, "whether the image is copied first"),
];
const MEDIUM: Form = Form::Either(&[Form::Text, Form::Table(MEDIUM_KEYS)]);
const ISO: Form = Form::Either(&[Form::Text, Form::Table(ISO_KEYS)]);
const INSIDE: Form =
    Form::Table(&[("iso", Form::Text, "the path of the file inside the medium to install from")]);

const SOURCE: Form = Form::Table(&[
    (
        "clone",
        Form::Either(&[
            Form::Text,
            Form::Table(&[
                ("vmid", Form::Integer(100, 999_999_999), "its VMID"),
                ("tags", Form::Texts, "the newest template with these tags"),
            ]),
        ]),
        "the VM or template to clone: its name, or how it is found",
    ),
    (
        "full",
        Form::Flag,
        "whether its disks are copied; a linked template needs its base as long as it exists",
    ),
    ("image", Form::Either(&[Form::Text, Form::Table(IMAGE_KEYS)]), "a disk image"),
    ("iso", ISO, "the medium to install from"),
    ("additional-isos", Form::List(&ISO), "further media for the drives"),
    ("iso-drives", Form::Word(&IsoDrives::NAMES), "what the template keeps of the drives"),
    ("after-install", Form::Word(&AfterInstall::NAMES), "what the installer does at its end"),
    (
        "kernel",
        Form::Either(&[Form::Text, Form::Table(MEDIUM_KEYS), INSIDE]),
        "a kernel to start without a boot loader",
    ),
    (
        "initrd",
        Form::Either(&[Form::Text, Form::Table(MEDIUM_KEYS), INSIDE, Form::List(&MEDIUM)]),
        "its initrd, or several",
    ),
    ("cmdline", Form::Text, "its command line; may use {{ seed.arguments }}"),
]);

const CLOUD_INIT: Form = Form::Either(&[
    Form::Flag,
    Form::Table(&[
        ("slot", Form::Text, "ide2, scsi1, …"),
        ("storage", Form::Text, "the storage for it"),
        ("cicustom", Form::Any, "as Proxmox has it"),
        ("cipassword", Form::Text, "the password of its user, by a secret variable: \"{{ var.password }}\""),
        ("citype", Form::Any, "as Proxmox has it"),
        ("ciupgrade", Form::Any, "as Proxmox has it"),
        ("ciuser", Form::Any, "as Proxmox has it"),
        ("ipconfig", Form::Any, "as Proxmox has it; an array for several adapters"),
        ("nameserver", Form::Any, "as Proxmox has it"),
        ("searchdomain", Form::Any, "as Proxmox has it"),
        ("sshkeys", LINES, "public keys"),
    ]),
]);

const DISK: Keys = &[
    ("slot", Form::Text, "scsi0-30, virtio0-15, sata0-5, ide0-3, or on QEMU nvme0-7"),
    ("size", Form::Size, "\"20GiB\"; an integer counts GiB"),
    ("discard", Form::Flag, ""),
    ("storage", Form::Text, "the storage for it"),
    ("options", Form::Map(&Form::Any), "further options by Proxmox's names"),
    ("aio", Form::Any, "as Proxmox has it"),
    ("backup", Form::Any, "as Proxmox has it"),
    ("cache", Form::Any, "as Proxmox has it"),
    ("format", Form::Any, "as Proxmox has it"),
    ("iothread", Form::Any, "as Proxmox has it"),
    ("replicate", Form::Any, "as Proxmox has it"),
    ("serial", Form::Any, "as Proxmox has it"),
    ("ssd", Form::Any, "as Proxmox has it"),
];

const NETWORK: Keys = &[
    ("model", Form::Text, "virtio, e1000, …"),
    ("bridge", Form::Text, "the bridge; else the target's"),
    ("vlan", Form::Integer(1, 4094), ""),
    ("mac", Form::Text, "BC:24:11:00:00:01, or `repeatable`: by the VMID"),
    ("options", Form::Map(&Form::Any), "further options by Proxmox's names"),
    ("firewall", Form::Any, "as Proxmox has it"),
    ("link-down", Form::Any, "as Proxmox has it"),
    ("mtu", Form::Any, "as Proxmox has it"),
    ("queues", Form::Any, "as Proxmox has it"),
    ("rate", Form::Any, "as Proxmox has it"),
    ("trunks", Form::Any, "as Proxmox has it"),
];

const EFI_DISK: Form = Form::Either(&[
    Form::Flag,
    Form::Table(&[
        ("storage", Form::Text, "the storage for it"),
        ("format", Form::Any, "as Proxmox has it"),
        ("type", Form::Any, "4m or 2m"),
        ("pre-enrolled-keys", Form::Any, "whether keys for Secure Boot are in it"),
    ]),
]);
const TPM: Form = Form::Either(&[
    Form::Flag,
    Form::Table(&[
        ("storage", Form::Text, "the storage for it"),
        ("format", Form::Any, "as Proxmox has it"),
        ("version", Form::Any, "v2.0 or v1.2"),
    ]),
]);

const VM: Form = Form::Table(&[
    ("cores", Form::Integer(1, 8192), "cores of each socket"),
    ("sockets", Form::Integer(1, 64), ""),
    ("cpu", Form::Text, "the CPU type"),
    ("memory", Form::Size, "\"4GiB\"; an integer counts MiB"),
    ("disks", Form::Tables(DISK), "disks to grow, change or add"),
    ("networks", Form::Tables(NETWORK), "network adapters, net0 first"),
    ("agent", Form::Flag, "whether the guest agent's device is there"),
    ("node", Form::Text, "the node"),
    (
        "vmid",
        Form::Integer(100, 999_999_999),
        "the id that build VM and template have; else one of the target's `vmids`",
    ),
    ("storage", Form::Text, "the storage for its disks; else the target's"),
    ("pool", Form::Text, "the resource pool; else the target's"),
    ("cloud-init", CLOUD_INIT, "the cloud-init drive that the template's clones are set up by"),
    ("efi-disk", EFI_DISK, "the firmware's variables"),
    ("tpm", TPM, "a TPM"),
    ("serials", Form::List(&Form::Any), "serial ports"),
    ("pci-devices", Form::List(&Form::Any), "devices of the node"),
    ("proxmox", Form::Map(&Form::Any), "keys of Proxmox's VM configuration"),
    ("qemu", Form::Map(&Form::Any), "settings of the local QEMU"),
    ("args", Form::Any, "further arguments of QEMU"),
    ("balloon", Form::Any, "the least memory, or false"),
    ("bios", Form::Any, "seabios or ovmf"),
    ("boot-order", Form::Any, "[\"scsi0\", \"ide2\"]"),
    ("hotplug", Form::Any, "as Proxmox has it"),
    ("kvm", Form::Any, "as Proxmox has it"),
    ("localtime", Form::Any, "as Proxmox has it"),
    ("machine", Form::Any, "q35 or i440fx"),
    ("numa", Form::Any, "as Proxmox has it"),
    ("onboot", Form::Any, "as Proxmox has it"),
    ("ostype", Form::Any, "as Proxmox has it"),
    ("rng", Form::Any, "a source of randomness: true, false, or as Proxmox has it"),
    ("scsihw", Form::Any, "as Proxmox has it"),
    ("vga", Form::Any, "as Proxmox has it"),
]);

const KINDS: &[&str] =
    &["nocloud", "autoinstall", "kickstart", "preseed", "autoyast", "agama", "autounattend"];
const RUNGS: &[&str] =
    &["cloud-init-drive", "smbios", "kernel", "boot-disc", "disc", "floppy", "typed", "none"];
const SEED: Form = Form::Table(&[
    ("kind", Form::Word(KINDS), "which answers"),
    (
        "delivery",
        Form::Either(&[Form::Word(&["auto"]), Form::Word(RUNGS), Form::Words(RUNGS)]),
        "how the guest gets them: `auto`, or the ways that are allowed, best first",
    ),
    ("hostname", Form::Text, TEMPLATED),
    ("user-data", Form::Map(&Form::Any), "by cloud-init's own names"),
    ("network-config", Form::Map(&Form::Any), "by cloud-init's own names"),
    ("lint", Form::Flag, "whether the rendered answers are judged"),
    ("vars", Form::SeedVars, "what the answers say"),
    ("directory", Form::Text, "a folder, whose files the guest finds beside the seed"),
    ("files", OWN_FILES, "files of your own, by the names that the guest finds them by"),
    (
        "disc",
        Form::Table(&[
            ("label", Form::Text, "its label; else what the seed's reader looks for"),
            ("directory", Form::Text, "a folder, whose files are on it"),
            ("files", OWN_FILES, "files of your own, by their names on it"),
        ]),
        "a disc of your own; the seed is on it too where that goes by disc",
    ),
    (
        "floppy",
        Form::Table(&[
            ("label", Form::Text, "its label"),
            ("directory", Form::Text, "a folder, whose files are on it"),
            ("files", OWN_FILES, "files of your own, by their names on it"),
        ]),
        "a floppy of your own (QEMU); the seed is on it too where that goes by floppy",
    ),
]);

const OWN_FILES: Form = Form::Map(&Form::Either(&[
    Form::Text,
    Form::Table(&[("content", Form::Text, "what is in it; may use {{ var.NAME }}")]),
]));

const BOOT: Form = Form::Table(&[
    ("boot-wait", Form::Time, "a first pause, as Packer's"),
    ("steps", Form::Steps, "what is done, in order"),
]);

const SIGHT_KEYS: Keys = &[
    ("regex", Form::Text, "a regular expression"),
    ("needle", Form::Text, "a PNG of what is looked for"),
    ("match", Form::Integer(50, 100), "how alike it must be, in percent"),
    ("areas", Form::Texts, "\"left,top,width,height\" of the picture"),
];
const SIGHT_OR_SERIAL: Keys = &[
    ("regex", Form::Text, "a regular expression"),
    ("needle", Form::Text, "a PNG of what is looked for"),
    ("match", Form::Integer(50, 100), "how alike it must be, in percent"),
    ("areas", Form::Texts, "\"left,top,width,height\" of the picture"),
    ("serial", Form::Text, "a regular expression for the serial port's lines"),
];
const OUTCOME: Keys = &[
    ("text", Form::Text, "a text of the screen"),
    ("regex", Form::Text, "a regular expression"),
    ("needle", Form::Text, "a PNG of what is looked for"),
    ("match", Form::Integer(50, 100), "how alike it must be, in percent"),
    ("areas", Form::Texts, "\"left,top,width,height\" of the picture"),
    ("lines", Form::Text, "the lines in which it stands, \"20-25\""),
    ("columns", Form::Text, "the columns in which it stands, \"1-40\""),
    ("steps", Form::Steps, "what is done then"),
    ("again", Form::Flag, "whether the others are looked for afterwards"),
    ("fail", Form::Text, "the build fails with this"),
];

const CONDITIONS: &[&str] =
    &["bios", "uefi", "cloud-init-drive", "smbios", "kernel", "boot-disc", "disc", "floppy", "typed", "none"];
pub(super) const STEP: Keys = &[
    ("wait-for", Form::Either(&[Form::Text, Form::Table(SIGHT_OR_SERIAL)]), "waits for a text of the screen"),
    ("wait-still", Form::Time, "waits until the screen stands still for so long"),
    ("wait", Form::Time, "waits"),
    ("keys", Form::Text, "presses keys, in Packer's language"),
    ("type", Form::Text, "types a text and reads it back"),
    ("command", LINES, "Packer's boot_command"),
    ("expect", Form::Tables(OUTCOME), "waits for one of several, and does what it says"),
    (
        "until",
        Form::Either(&[Form::Text, Form::Table(SIGHT_KEYS)]),
        "presses keys until this is on the screen",
    ),
    ("within", Form::Time, "how long it may take"),
    ("or-after", Form::Time, "goes on after this, with a warning"),
    ("still-for", Form::Time, "how long the screen must have stood still then"),
    ("lines", Form::Text, "the lines in which it stands, \"20-25\""),
    ("columns", Form::Text, "the columns in which it stands, \"1-40\""),
    ("press", Form::Text, "the keys that are pressed until then"),
    ("every", Form::Time, "the pause between two of them"),
    ("echo", Form::Word(&["required", "if-seen", "none"]), "whether the text is read back"),
    ("enter", Form::Flag, "whether Enter follows"),
    ("layout", Form::Word(&Layout::NAMES), "the guest's keyboard"),
    (
        "when",
        Form::Either(&[Form::Word(CONDITIONS), Form::Words(CONDITIONS)]),
        "only with this firmware, or when the seed takes this way",
    ),
];

const SECRET: Form = Form::Table(&[
    ("env", Form::Text, "a variable of the environment that holds it"),
    ("file", Form::Text, "a file that holds it"),
    ("command", Form::Texts, "a command that prints it"),
]);
const PORT: Form = Form::Integer(1, 65_535);
const BASTION: Keys = &[
    ("host", Form::Text, TEMPLATED),
    ("port", PORT, ""),
    ("user", Form::Text, TEMPLATED),
    ("host-key", Form::Text, "its fingerprint, SHA256:…"),
    ("key-file", Form::Text, "a private key"),
    ("certificate-file", Form::Text, "its certificate"),
    ("password", SECRET, ""),
    ("key-passphrase", SECRET, ""),
    ("agent-auth", Form::Flag, "whether ssh-agent is asked"),
];
const ACCESS: Form = Form::Table(&[
    ("user", Form::Text, TEMPLATED),
    ("create", Form::Flag, "whether the seed makes this user, and the seal removes it"),
    ("via", Form::Words(&Via::NAMES), "the ways to the guest, in their order"),
    ("host", Form::Text, "the guest's address, when it is known"),
    ("interface", Form::Text, "the guest's network interface, by its own name, whose addresses count alone"),
    ("port", PORT, "SSH's port"),
    (
        "host-key",
        Form::Text,
        "the guest's fingerprint, SHA256:…; `seed` gives it a key that is made for the build",
    ),
    ("old-algorithms", Form::Flag, "whether ciphers of old servers are allowed"),
    ("keep-alive", Form::Time, "how often a silent connection is checked"),
    ("key-file", Form::Text, "a private key"),
    ("certificate-file", Form::Text, "its certificate"),
    ("password", SECRET, ""),
    ("key-passphrase", SECRET, ""),
    ("agent-auth", Form::Flag, "whether ssh-agent is asked"),
    ("bastions", Form::Tables(BASTION), "hosts on the way, in their order"),
    (
        "winrm",
        Form::Table(&[
            ("port", PORT, "5985, with TLS 5986"),
            ("use-ssl", Form::Flag, ""),
            ("insecure", Form::Flag, "whether the certificate is taken as it is"),
            ("fingerprint", Form::Text, "the SHA-256 fingerprint of the one certificate that is taken"),
            ("auth", Form::Word(&["ntlm", "basic"]), ""),
        ]),
        "how Windows Remote Management is spoken",
    ),
    (
        "proxy",
        Form::Table(&[
            ("type", Form::Word(&["socks5", "http"]), ""),
            ("host", Form::Text, TEMPLATED),
            ("port", PORT, ""),
            ("user", Form::Text, TEMPLATED),
            ("password", SECRET, ""),
        ]),
        "a proxy on the way",
    ),
]);

const PROVISION: Keys = &[
    ("name", Form::Text, "one of the base with this name is replaced"),
    ("enabled", Form::Flag, "false drops the one of the base"),
    ("shell", LINES, "lines for the guest's shell"),
    ("script", Form::Text, "a script, relative to this file"),
    ("scripts", Form::Texts, "several scripts"),
    ("powershell", LINES, "lines for the guest's PowerShell"),
    ("execution-policy", Form::Text, "PowerShell's, for this script"),
    ("use-pwsh", Form::Flag, "whether it is PowerShell 7"),
    (
        "windows-restart",
        Form::Either(&[
            Form::Flag,
            Form::Table(&[
                ("restart-command", Form::Text, ""),
                ("restart-check-command", Form::Text, "until this succeeds"),
                ("restart-timeout", Form::Time, ""),
            ]),
        ]),
        "starts Windows anew",
    ),
    (
        "windows-update",
        Form::Either(&[
            Form::Flag,
            Form::Table(&[
                ("search-criteria", Form::Text, "what Windows Update is asked for"),
                ("filters", Form::Texts, "\"include:\" or \"exclude:\" and an expression about `$_`"),
                ("update-limit", Form::Integer(1, 1000), "how many at most"),
            ]),
        ]),
        "installs updates, with restarts between",
    ),
    ("shell-local", LINES, "lines for this machine's shell"),
    ("exec", Form::Texts, "a program of this machine, which gets the build as JSON"),
    ("ansible", Form::Text, "a playbook, run from this machine"),
    ("ansible-local", Form::Text, "a playbook, run in the guest"),
    ("playbook-dir", Form::Text, "the folder that is carried to the guest"),
    ("groups", Form::Texts, "the groups of the inventory that the guest is in"),
    ("host-alias", Form::Text, "the guest's name in the inventory"),
    ("extra-arguments", Form::Texts, "for ansible-playbook"),
    ("galaxy-file", Form::Text, "roles and collections that it asks for"),
    ("roles-path", Form::Text, ""),
    ("collections-path", Form::Text, ""),
    ("vault-password-file", Form::Text, ""),
    ("upload", Form::Text, "a file or folder to the guest"),
    ("download", Form::Text, "a file or folder from the guest"),
    ("content", Form::Text, "a text that becomes a file of the guest"),
    ("destination", Form::Text, "where it goes to"),
    ("mode", Form::Text, "the permission bits of the file that is made, \"0755\""),
    ("reboot", Form::Flag, "starts the guest anew"),
    (
        "wait-for",
        Form::Table(&[
            ("port", PORT, "until this port of the guest accepts"),
            ("file", Form::Text, "until this file is there"),
            ("command", Form::Text, "until this succeeds"),
        ]),
        "waits",
    ),
    ("breakpoint", Form::Either(&[Form::Flag, Form::Text]), "stops and asks"),
    ("env", Form::Map(&SCALAR), "variables for it"),
    (
        "become",
        Form::Either(&[Form::Flag, Form::Word(&["auto", "sudo", "doas", "su"])]),
        "whether it runs as root",
    ),
    ("interpreter", Form::Text, "the program that runs the script"),
    ("work-dir", Form::Text, "the folder of the guest in which it runs"),
    (
        "valid-exit-codes",
        Form::List(&Form::Integer(0, 2_147_483_647)),
        "those that mean success; above 255 only with Windows",
    ),
    ("timeout", Form::Time, ""),
    ("expect-disconnect", Form::Flag, "whether the connection may break"),
    ("pause-before", Form::Time, ""),
    ("max-retries", Form::Integer(0, 100), ""),
    ("start-retry", Form::Time, ""),
    ("on-error", Form::Flag, "runs only when another one failed"),
    ("only", Form::Texts, "targets, profiles or target.profile"),
    ("except", Form::Texts, "targets, profiles or target.profile"),
];

const DEADLINES: Form = Form::Table(&[
    ("boot", Form::Time, "without a change on the screen"),
    ("connect", Form::Time, ""),
    ("shutdown", Form::Time, ""),
    ("build", Form::Either(&[Form::Word(&["none"]), Form::Time]), "the whole build"),
]);
