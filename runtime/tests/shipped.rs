//! Compiled modules from a file, on a GPU and without NVRTC, with the feature `jit` and without.
//!
//! With `jit` the test makes the file and starts itself again where NVRTC cannot be found. A test built
//! without `jit` takes a file that the command line made:
//!
//! ```sh
//! sparsek emit runtime/tests/common/mod.rs::Local --image --head-dim 64 --k 32 --window 48 --group 2 \\
//!     --output local.image
//! cargo test -p sparsek --no-default-features --test shipped --no-run
//! SPARSEK_TEST_IMAGES=local.image ./shipped-HASH --nocapture     # on a machine with a GPU of the target
//! ```

mod common;

use common::{Case, check_against_the_cpu, local};
use sparsek::cuda::{Device, Image, Module, devices};
use std::path::Path;

/// Names the file of images.
const IMAGES: &str = "SPARSEK_TEST_IMAGES";

#[test]
fn images_alone_run_forward_and_backward() {
    let device = match devices().and_then(|_| Device::new(0)) {
        Ok(device) => device,
        Err(e) => {
            eprintln!("skipped: {e}");
            return;
        }
    };
    match std::env::var_os(IMAGES) {
        Some(file) => run(&device, Path::new(&file)),
        None => make_and_run(&device),
    }
}

/// Forward and backward from the file's images alone.
fn run(device: &Device, file: &Path) {
    #[cfg(feature = "jit")]
    if let Ok(nvrtc) = sparsek::cuda::nvrtc::Nvrtc::find() {
        panic!("NVRTC is not hidden: {}", nvrtc.path().display());
    }
    let kernel = local().cuda(device).kernel().with_cache(None);
    let images = Image::all_from_bytes(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(images.iter().map(Image::module).collect::<Vec<_>>(), Module::ALL);
    for image in images {
        kernel.add_image(image).unwrap();
    }
    check_against_the_cpu(&kernel, &Case::new(2, 300));
    assert_eq!(kernel.images().len(), 3);
    // What no image was made for says so, and what to do.
    let other = Case { slope: Vec::new(), ..Case::new(1, 40) };
    let inputs = ["q", "k", "v", "u"]
        .into_iter()
        .fold(sparsek::NamedTensors::new(), |all, name| all.with(name, other.view(name)));
    let refused = kernel.run_host(&inputs, None, &Default::default()).unwrap_err().to_string();
    let expected = if cfg!(feature = "jit") { "NVRTC" } else { "add_image" };
    assert!(refused.contains(expected), "{refused}");
    #[cfg(target_os = "linux")]
    {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(maps.contains("libcuda") && !maps.contains("libnvrtc"), "NVRTC was loaded");
    }
    println!("ran from images alone");
}

#[cfg(not(feature = "jit"))]
fn make_and_run(_: &Device) {
    eprintln!("skipped: {IMAGES} is not set");
}

#[cfg(feature = "jit")]
fn make_and_run(device: &Device) {
    use sparsek::cuda::{CallShape, nvrtc::Nvrtc};
    if let Err(e) = Nvrtc::find() {
        eprintln!("skipped: {e}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("local.image");
    let code = local().kernel().code(&CallShape::group(2), device.target()).unwrap();
    let bytes = Module::ALL.map(|module| code.compile(module).unwrap().to_bytes().unwrap());
    std::fs::write(&file, bytes.concat()).unwrap();
    // The variable is looked at before any other place, and names a folder without a library.
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let ran = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "images_alone_run_forward_and_backward", "--nocapture"])
        .env(IMAGES, &file)
        .env("SPARSEK_NVRTC", &empty)
        .env("SPARSEK_CACHE_DIR", &empty)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.contains("ran from images alone"), "{out}{err}");
}
