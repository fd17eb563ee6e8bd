//! Integration tests of forge, in one binary.

#![expect(clippy::expect_used, reason = "a test says what it takes for granted")]

mod bad_input;
mod fault_matrix;
mod first_contact;
mod gate;
mod hardware;
mod init;
mod installer_debian;
mod lab_agent;
mod lab_builds;
mod lab_doctor;
mod lab_faults;
mod lab_identity;
mod lab_images;
mod lab_kills;
mod lab_matrix;
mod lab_media_faults;
mod lab_outages;
mod lab_parallel;
mod lab_prestage;
mod lab_race;
mod lab_seal;
mod lab_silence;
mod lab_sources;
mod lab_versions;
mod lab_words;
mod media;
mod on_error;
mod pipelines;
mod plan_seeds;
mod prestage;
mod qemu_bad_input;
mod qemu_bridge;
mod qemu_full;
mod qemu_images;
mod qemu_installs;
mod qemu_menus;
mod report_page;
mod schema;
mod seed_bad_input;
mod seed_disc;
mod support;
mod typing_websocket;
mod walkthrough;
mod winrm;
