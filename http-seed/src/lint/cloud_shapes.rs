//! The second level of cloud-init's user-data and its network configuration, by its published schemas
//! (`schema-cloud-config-v1.json`, `schema-network-config-v1.json`, `schema-network-config-v2.json` of cloud-init 22.4 to 26;
//! what one of them has is known).

use super::shape::Shape::{self, Any, Either, Flag, List, Map, Null, Number, OneOf, Open, Table, Text};

const TEXTS: Shape = List(&Text);

const USER: Shape = Table(
    &[
        ("name", Text),
        ("doas", TEXTS),
        ("expiredate", Text),
        ("gecos", Text),
        ("groups", Either(&[Text, TEXTS, Map(&Any)])),
        ("homedir", Text),
        ("inactive", Text),
        ("lock-passwd", Flag),
        ("lock_passwd", Flag),
        ("no-create-home", Flag),
        ("no_create_home", Flag),
        ("no-log-init", Flag),
        ("no_log_init", Flag),
        ("no-user-group", Flag),
        ("no_user_group", Flag),
        ("passwd", Text),
        ("hashed-passwd", Text),
        ("hashed_passwd", Text),
        ("plain-text-passwd", Text),
        ("plain_text_passwd", Text),
        ("create-groups", Flag),
        ("create_groups", Flag),
        ("primary-group", Text),
        ("primary_group", Text),
        ("selinux-user", Text),
        ("selinux_user", Text),
        ("shell", Text),
        ("snapuser", Text),
        ("ssh_authorized_keys", TEXTS),
        ("ssh-authorized-keys", TEXTS),
        ("ssh-import-id", TEXTS),
        ("ssh_import_id", TEXTS),
        ("ssh-redirect-user", Flag),
        ("ssh_redirect_user", Flag),
        ("system", Flag),
        ("sudo", Either(&[Text, Null, Flag, List(&Either(&[Text, Null]))])),
        ("uid", Either(&[Number, Text])),
    ],
    &[],
);

const APT_MIRRORS: Shape = List(&Table(
    &[
        ("arches", TEXTS),
        ("uri", Text),
        ("search", TEXTS),
        ("search_dns", Flag),
        ("keyid", Text),
        ("key", Text),
        ("keyserver", Text),
    ],
    &["arches"],
));

/// Keys of user-data with what is in them.
pub(super) const USER_DATA: &[(&str, Shape)] = &[
    ("users", Either(&[Text, List(&Either(&[Text, TEXTS, USER])), Map(&Any)])),
    ("user", Either(&[Text, USER])),
    (
        "write_files",
        List(&Table(
            &[
                ("path", Text),
                ("content", Text),
                ("source", Table(&[("uri", Text), ("headers", Map(&Text))], &["uri"])),
                ("owner", Text),
                ("permissions", Text),
                (
                    "encoding",
                    OneOf(&[
                        "gz",
                        "gzip",
                        "gz+base64",
                        "gzip+base64",
                        "gz+b64",
                        "gzip+b64",
                        "b64",
                        "base64",
                        "text/plain",
                    ]),
                ),
                ("append", Flag),
                ("defer", Flag),
            ],
            &["path"],
        )),
    ),
    (
        "ntp",
        Either(&[
            Null,
            Table(
                &[
                    ("pools", TEXTS),
                    ("servers", TEXTS),
                    ("peers", TEXTS),
                    ("allow", TEXTS),
                    ("ntp_client", Text),
                    ("enabled", Flag),
                    (
                        "config",
                        Table(
                            &[
                                ("confpath", Text),
                                ("check_exe", Text),
                                ("packages", TEXTS),
                                ("service_name", Text),
                                ("template", Text),
                            ],
                            &[],
                        ),
                    ),
                ],
                &[],
            ),
        ]),
    ),
    (
        "chpasswd",
        Table(
            &[
                ("expire", Flag),
                (
                    "users",
                    List(&Table(
                        &[("name", Text), ("type", OneOf(&["hash", "text", "RANDOM"])), ("password", Text)],
                        &["name"],
                    )),
                ),
                ("list", Either(&[Text, TEXTS])),
            ],
            &[],
        ),
    ),
    (
        "power_state",
        Table(
            &[
                ("delay", Either(&[Number, Text])),
                ("mode", OneOf(&["poweroff", "reboot", "halt"])),
                ("message", Text),
                ("timeout", Number),
                ("condition", Either(&[Text, Flag, List(&Any)])),
            ],
            &["mode"],
        ),
    ),
    (
        "growpart",
        Table(
            &[
                ("mode", Either(&[OneOf(&["auto", "growpart", "gpart", "off"]), Flag])),
                ("devices", TEXTS),
                ("ignore_growroot_disabled", Flag),
            ],
            &[],
        ),
    ),
    (
        "apt",
        Table(
            &[
                ("preserve_sources_list", Flag),
                ("generate_mirrorlists", Flag),
                ("disable_suites", TEXTS),
                ("primary", APT_MIRRORS),
                ("security", APT_MIRRORS),
                ("add_apt_repo_match", Text),
                ("debconf_selections", Map(&Text)),
                ("sources_list", Text),
                ("conf", Text),
                ("https_proxy", Text),
                ("http_proxy", Text),
                ("proxy", Text),
                ("ftp_proxy", Text),
                (
                    "sources",
                    Map(&Table(
                        &[
                            ("source", Text),
                            ("keyid", Text),
                            ("key", Text),
                            ("keyserver", Text),
                            ("filename", Text),
                            ("append", Flag),
                        ],
                        &[],
                    )),
                ),
            ],
            &[],
        ),
    ),
    ("ssh_pwauth", Either(&[Flag, Text])),
    (
        "disk_setup",
        Map(&Table(&[("table_type", OneOf(&["mbr", "gpt"])), ("layout", Any), ("overwrite", Flag)], &[])),
    ),
];

const ROUTE1: Shape = Table(
    &[
        ("type", OneOf(&["route"])),
        ("network", Text),
        ("destination", Text),
        ("netmask", Text),
        ("gateway", Text),
        ("metric", Number),
    ],
    &["gateway"],
);
const SUBNETS: Shape = List(&Table(
    &[
        (
            "type",
            OneOf(&[
                "dhcp4",
                "dhcp",
                "dhcp6",
                "static",
                "static6",
                "ipv6_dhcpv6-stateful",
                "ipv6_dhcpv6-stateless",
                "ipv6_slaac",
                "manual",
            ]),
        ),
        ("control", OneOf(&["manual", "auto", "hotplug"])),
        ("address", Text),
        ("netmask", Text),
        ("broadcast", Text),
        ("gateway", Text),
        ("dns_nameservers", TEXTS),
        ("dns_search", TEXTS),
        ("routes", List(&ROUTE1)),
        ("ipv4", Flag),
        ("ipv6", Flag),
        ("metric", Number),
    ],
    &[],
));
/// What an entry of version 1 is, by its `type`.
pub(super) const ENTRIES1: &[(&str, Shape)] = &[
    (
        "physical",
        Table(
            &[
                ("type", Text),
                ("name", Text),
                ("mac_address", Text),
                ("mtu", Either(&[Number, Null])),
                ("subnets", SUBNETS),
                ("accept-ra", Flag),
                ("keep_configuration", Flag),
            ],
            &["name"],
        ),
    ),
    (
        "bond",
        Table(
            &[
                ("type", Text),
                ("name", Text),
                ("mac_address", Text),
                ("bond_interfaces", TEXTS),
                ("mtu", Number),
                ("accept-ra", Flag),
                ("params", Map(&Any)),
                ("subnets", SUBNETS),
            ],
            &["name"],
        ),
    ),
    (
        "bridge",
        Table(
            &[
                ("type", Text),
                ("name", Text),
                ("bridge_interfaces", TEXTS),
                ("accept-ra", Flag),
                ("params", Map(&Any)),
                ("subnets", SUBNETS),
            ],
            &["name", "bridge_interfaces", "params"],
        ),
    ),
    (
        "vlan",
        Table(
            &[
                ("type", Text),
                ("name", Text),
                ("vlan_link", Text),
                ("vlan_id", Number),
                ("mtu", Number),
                ("subnets", SUBNETS),
                ("mac_address", Text),
                ("accept-ra", Flag),
            ],
            &["name", "vlan_link", "vlan_id"],
        ),
    ),
    (
        "nameserver",
        Table(
            &[("type", Text), ("address", Either(&[Text, TEXTS])), ("search", TEXTS), ("interface", Text)],
            &["address"],
        ),
    ),
    ("route", ROUTE1),
];
/// Version 1, but for its entries.
pub(super) const NETWORK1: Shape =
    Table(&[("version", Number), ("config", List(&Map(&Any)))], &["version", "config"]);

const OVERRIDES: Shape = Table(
    &[
        ("hostname", Text),
        ("route-metric", Number),
        ("send-hostname", Flag),
        ("use-dns", Flag),
        ("use-domains", Either(&[Flag, Text])),
        ("use-hostname", Flag),
        ("use-mtu", Flag),
        ("use-ntp", Flag),
        ("use-routes", Flag),
    ],
    &[],
);
/// An adapter of version 2. The schema takes further keys, which netplan has: those of its reference that are none of the
/// schema's are named, so that none is taken for a slip of another.
const ADAPTER: Shape = Open(&[
    ("renderer", OneOf(&["networkd", "NetworkManager"])),
    ("dhcp4", Flag),
    ("dhcp6", Flag),
    ("dhcp4-overrides", OVERRIDES),
    ("dhcp6-overrides", OVERRIDES),
    ("ra-overrides", Any),
    ("dhcp-identifier", Any),
    ("addresses", List(&Either(&[Text, Map(&Any)]))),
    ("gateway4", Text),
    ("gateway6", Text),
    ("optional", Flag),
    ("optional-addresses", Any),
    ("mtu", Number),
    ("ipv6-mtu", Any),
    ("ipv6-privacy", Any),
    ("ipv6-address-generation", Any),
    ("ipv6-address-token", Any),
    ("nameservers", Table(&[("search", TEXTS), ("addresses", TEXTS)], &[])),
    ("routes", List(&Open(&[("to", Text), ("via", Text), ("metric", Number), ("on-link", Flag)]))),
    ("routing-policy", Any),
    ("match", Table(&[("name", Text), ("macaddress", Text), ("driver", Either(&[Text, TEXTS]))], &[])),
    ("set-name", Text),
    ("wakeonlan", Flag),
    ("macaddress", Any),
    ("accept-ra", Any),
    ("link-local", Any),
    ("critical", Any),
    ("ignore-carrier", Any),
    ("activation-mode", Any),
    ("emit-lldp", Any),
    ("neigh-suppress", Any),
    ("auth", Any),
    ("openvswitch", Any),
    ("interfaces", TEXTS),
    ("parameters", Map(&Any)),
    ("id", Number),
    ("link", Text),
]);
const ADAPTERS: Shape = Map(&ADAPTER);

/// Version 2, as cloud-init takes it.
pub(super) const NETWORK2: Shape = Table(
    &[
        ("version", Number),
        ("renderer", OneOf(&["networkd", "NetworkManager"])),
        ("ethernets", ADAPTERS),
        ("bonds", ADAPTERS),
        ("bridges", ADAPTERS),
        ("vlans", ADAPTERS),
    ],
    &["version"],
);
/// Version 2, as Subiquity hands it to netplan (`autoinstall-schema.json`).
pub(super) const NETPLAN: Shape = Open(&[
    ("version", Number),
    ("renderer", OneOf(&["networkd", "NetworkManager"])),
    ("ethernets", ADAPTERS),
    ("wifis", Map(&Any)),
    ("bonds", ADAPTERS),
    ("bridges", ADAPTERS),
    ("tunnels", Map(&Any)),
    ("vlans", ADAPTERS),
    ("vrfs", Any),
    ("modems", Any),
]);
