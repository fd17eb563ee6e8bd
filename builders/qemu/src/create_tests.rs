//! Disks of images that were not here when the build was planned.

use forge_machine::{DiskSpec, Hypervisor as _, MachineSpec, PortError, SourceSpec, TaskHandle, VmRef};

use crate::hypervisor::tests::{Rig, rig};

async fn created(rig: &Rig, spec: &MachineSpec) -> Result<VmRef, PortError> {
    let at = rig.hypervisor.propose_id(spec, &[]).await.expect("an id");
    let task: TaskHandle = rig.hypervisor.submit_create(spec, &at, &rig.mark).await?;
    rig.hypervisor.wait(&task).await?;
    Ok(at)
}

#[tokio::test]
async fn a_disk_that_is_smaller_than_its_image_is_refused_when_the_image_is_here() {
    let Some(rig) = rig().await else { return };
    for copy in [false, true] {
        let of_size = |size: u64| {
            let SourceSpec::Image { image, .. } = rig.spec.source.clone() else { panic!("an image") };
            MachineSpec {
                source: SourceSpec::Image { image, copy },
                disks: vec![DiskSpec { slot: "virtio0".into(), size: Some(size), ..DiskSpec::default() }],
                ..rig.spec.clone()
            }
        };
        // The image has 1 MiB.
        let error = created(&rig, &of_size(1 << 19)).await.expect_err("too small");
        let words = error.to_string();
        assert!(words.contains("the image has 1048576") && words.contains("524288"), "{words}");
        for size in [1 << 20, 3 << 20] {
            let at = created(&rig, &of_size(size)).await.expect("large enough");
            rig.hypervisor.machine(&at).destroy().await.expect("removed");
        }
    }
}
