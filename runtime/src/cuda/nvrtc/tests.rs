use super::*;

const SCALE: &str = r#"
#include <cuda_bf16.h>
struct Arguments { float* x; long long n; };
extern "C" __global__ void scale(const __grid_constant__ Arguments a) {
    __shared__ float s[64];
    const int i = blockIdx.x * 64 + threadIdx.x;
    s[threadIdx.x] = i;
    __syncthreads();
    if (i < a.n) a.x[i] *= __bfloat162float(__float2bfloat16(s[63 - threadIdx.x]));
}
extern "C" __global__ void clear(const __grid_constant__ Arguments a) { a.x[0] = 0; }
"#;

/// NVRTC, where this machine has one; tests that need it do nothing elsewhere.
fn nvrtc() -> Option<&'static Nvrtc> {
    match Nvrtc::find() {
        Ok(nvrtc) => Some(nvrtc),
        Err(e) => {
            assert!(e.to_string().contains("SPARSEK_NVRTC"), "{e}");
            eprintln!("skipped: {e}");
            None
        }
    }
}

#[test]
fn every_target_compiles_and_reports_its_resources() {
    let Some(nvrtc) = nvrtc() else { return };
    std::thread::scope(|scope| {
        for target in Target::ALL {
            scope.spawn(move || {
                let compiled = nvrtc.compile("scale", SCALE, &target).unwrap();
                assert!(compiled.cubin.starts_with(b"\x7fELF"), "{target}");
                let mut entries: Vec<&str> =
                    compiled.resources.iter().map(|r| r.entry.as_str()).collect();
                entries.sort_unstable();
                assert_eq!(entries, ["clear", "scale"], "{target}: {}", compiled.log);
                let scale = compiled.resources.iter().find(|r| r.entry == "scale").unwrap();
                assert!(scale.registers > 0 && scale.shared >= 256, "{target}: {scale:?}");
            });
        }
    });
}

#[test]
fn ptx_is_text() {
    let Some(nvrtc) = nvrtc() else { return };
    let ptx = nvrtc.ptx("scale", SCALE, &Target::ALL[0]).unwrap();
    assert!(ptx.contains(".target sm_80") && ptx.contains(".entry scale"), "{ptx}");
    assert!(!ptx.contains('\0'));
}

#[test]
fn a_mistake_is_reported_with_its_line() {
    let Some(nvrtc) = nvrtc() else { return };
    let source = "extern \"C\" __global__ void f() {\n  missing();\n}\n";
    let message = nvrtc.compile("f of Test", source, &Target::ALL[3]).unwrap_err().to_string();
    assert!(message.contains("f of Test does not compile for sm_90a"), "{message}");
    assert!(message.contains("f of Test.cu(2)") && message.contains("missing"), "{message}");
}

#[test]
fn what_is_not_nvrtc_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = Nvrtc::load(folder.path()).unwrap_err().to_string();
    assert!(nowhere.contains("there is no NVRTC library"), "{nowhere}");
    let file = folder.path().join("libnvrtc.so.13");
    std::fs::write(&file, "not a library").unwrap();
    let message = Nvrtc::load(&file).unwrap_err().to_string();
    assert!(message.contains("libnvrtc.so.13"), "{message}");
}
