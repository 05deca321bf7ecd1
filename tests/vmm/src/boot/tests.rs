//! Kernels that are none, and the parameters of one that is made up.

use std::path::PathBuf;

use linux_loader::loader::bootparam::boot_params;
use vm_memory::{Bytes, GuestAddress};

use super::{Loaded, ZERO_PAGE, first_processor, load};
use crate::memory::GuestRam;

/// A file with the header of a bzImage, and `PAYLOAD` as its code.
fn kernel(xloadflags: u16) -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x211] = 1;
    image[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes());
    image[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    image[0x236..0x238].copy_from_slice(&xloadflags.to_le_bytes());
    image[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes());
    image[0x260..0x264].copy_from_slice(&0x20_0000_u32.to_le_bytes());
    // The header that is read covers more than the setup sectors of so small a file.
    image.extend_from_slice(b"PAYLOAD");
    image
}

fn files(kernel: &[u8], initrd: &[u8]) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["kernel", "initrd"].map(|name| folder.path().join(name));
    std::fs::write(&paths[0], kernel).unwrap();
    std::fs::write(&paths[1], initrd).unwrap();
    let [kernel, initrd] = paths;
    (folder, kernel, initrd)
}

#[test]
fn a_kernel_finds_its_parameters() {
    let ram = GuestRam::new(64).unwrap();
    let (_folder, kernel, initrd) = files(&kernel(1), b"070701 and so on");
    let loaded = load(&ram, &kernel, &initrd, "console=ttyS0 quiet", 0xe_0000).unwrap();
    assert_eq!(loaded, Loaded { entry: 0x10_0200, parameters: ZERO_PAGE });
    let mut code = [0; 7];
    ram.mapped().read_slice(&mut code, GuestAddress(0x10_0000)).unwrap();
    assert_eq!(&code, b"PAYLOAD");

    let parameters: boot_params = ram.mapped().read_obj(GuestAddress(ZERO_PAGE)).unwrap();
    assert_eq!({ parameters.acpi_rsdp_addr }, 0xe_0000);
    let header = parameters.hdr;
    let mut line = vec![0; header.cmdline_size as usize + 1];
    ram.mapped().read_slice(&mut line, GuestAddress(u64::from(header.cmd_line_ptr))).unwrap();
    assert_eq!(line, b"console=ttyS0 quiet\0");
    let mut start = [0; 6];
    ram.mapped().read_slice(&mut start, GuestAddress(u64::from(header.ramdisk_image))).unwrap();
    assert_eq!((&start, { header.ramdisk_size }), (b"070701", 16));

    let mut reset = [0; 6];
    ram.mapped().read_slice(&mut reset, GuestAddress(0xf_fff0)).unwrap();
    assert_eq!(reset, [0xb0, 1, 0xba, 0x02, 0x06, 0xee]);

    let table = parameters.e820_table;
    let map: Vec<_> = table[..parameters.e820_entries as usize].iter().map(|e| (e.addr, e.size, e.r#type)).collect();
    assert_eq!(map, [(0, 0x9_fc00, 1), (0x9_fc00, 0x6_0400, 2), (0x10_0000, 63 << 20, 1)]);
}

#[test]
fn what_is_no_kernel_or_does_not_fit_is_refused_in_words() {
    let ram = GuestRam::new(64).unwrap();
    let refuse = |image: &[u8], initrd: &[u8], line: &str| {
        let (_folder, kernel, initrd) = files(image, initrd);
        format!("{:#}", load(&ram, &kernel, &initrd, line, 0).unwrap_err())
    };
    assert!(refuse(&[7; 2000], b"", "").contains("is it a bzImage"));
    assert!(refuse(b"short", b"", "").contains("is it a bzImage"));
    assert!(refuse(&kernel(0), b"", "").contains("64-bit"));
    assert!(refuse(&kernel(1), &vec![0; 62 << 20], "").contains("more memory"));
    assert!(refuse(&kernel(1), b"", &"x".repeat(3000)).contains("2047 bytes"));
    let missing = load(&ram, "/none".as_ref(), "/none".as_ref(), "", 0).unwrap_err();
    assert!(format!("{missing:#}").contains("open the kernel /none"));
}

#[test]
fn the_first_gib_is_mapped_onto_itself() {
    let ram = GuestRam::new(64).unwrap();
    let loaded = Loaded { entry: 0x10_0200, parameters: ZERO_PAGE };
    let (special, general) = first_processor(&ram, loaded, kvm_bindings::kvm_sregs::default()).unwrap();
    let word = |at: u64| ram.mapped().read_obj::<u64>(GuestAddress(at)).unwrap();
    let directory = word(word(special.cr3) & !0xfff) & !0xfff;
    for page in [0, 1, 511] {
        assert_eq!(word(directory + 8 * page), (page << 21) | 0x83);
    }
    assert_eq!((general.rip, general.rsi, special.cs.l), (0x10_0200, ZERO_PAGE, 1));
    assert_eq!(word(special.gdt.base + u64::from(special.cs.selector)) >> 40 & 0xff, 0x9b);
}
