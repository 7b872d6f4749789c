//! Running a module: its launches in order, on one stream.

use super::Error;
use super::arguments::Arguments;
use super::workspace::{Bases, Workspace};
use sparsek_codegen::{Interface, Launch, Product, Sizes};

/// Blocks of a grid along x, y and z that the hardware takes.
const GRID_LIMITS: [(char, u64); 3] = [('x', (1 << 31) - 1), ('y', 65535), ('z', 65535)];

/// What runs the commands of a module, in order: a stream.
pub(crate) trait Queue {
    /// Sets bytes to zero.
    fn zero(&mut self, address: u64, bytes: u64) -> Result<(), Error>;

    /// Launches a kernel.
    fn launch(&mut self, command: &Command<'_>) -> Result<(), Error>;
}

/// A kernel launch with its sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command<'a> {
    /// Which of the module's launches.
    pub(crate) index: usize,
    pub(crate) entry: &'a str,
    pub(crate) grid: [u32; 3],
    pub(crate) threads: u32,
    pub(crate) shared: u32,
    /// The parameter struct.
    pub(crate) words: &'a [u64],
}

/// Queues a module: zeroes what it wants zeroed, then its launches. Launches over an empty grid are
/// left out.
pub(crate) fn run(
    interface: &Interface,
    arguments: &Arguments<'_>,
    workspace: &Workspace,
    bases: Bases,
    queue: &mut dyn Queue,
) -> Result<(), Error> {
    let words = arguments.words(interface)?;
    // Every grid before the first command: a call is refused whole.
    let grids = interface
        .launches
        .iter()
        .map(|launch| grid(launch, arguments.sizes))
        .collect::<Result<Vec<_>, _>>()?;
    for buffer in interface.buffers.iter().filter(|b| b.zeroed) {
        match workspace.at(&buffer.name, bases) {
            Some((_, 0)) | None => {}
            Some((address, bytes)) => queue.zero(address, bytes)?,
        }
    }
    for (index, (launch, grid)) in interface.launches.iter().zip(grids).enumerate() {
        if grid.contains(&0) {
            continue;
        }
        let Launch { entry, threads, shared, .. } = launch;
        let (threads, shared) = (*threads, *shared);
        queue.launch(&Command { index, entry, grid, threads, shared, words: &words })?;
    }
    Ok(())
}

/// The blocks of a launch, checked against the hardware's limits.
fn grid(launch: &Launch, sizes: &Sizes) -> Result<[u32; 3], Error> {
    let mut grid = [0; 3];
    let dims: &[Product; 3] = &launch.grid;
    for ((out, dim), (axis, limit)) in grid.iter_mut().zip(dims).zip(GRID_LIMITS) {
        let blocks = dim.of(sizes).unwrap_or(u64::MAX);
        let fits = u32::try_from(blocks).ok().filter(|_| blocks <= limit);
        *out =
            fits.ok_or_else(|| Error::Grid { entry: launch.entry.clone(), axis, blocks, limit })?;
    }
    Ok(grid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use sparsek_codegen::{Buffer, Factor, Keep, Parameter, Scalar};
    use std::collections::BTreeMap;

    /// Writes down what it is told to run.
    #[derive(Default)]
    struct Recorder(Vec<String>);

    impl Queue for Recorder {
        fn zero(&mut self, address: u64, bytes: u64) -> Result<(), Error> {
            self.0.push(format!("zero {address:#x} {bytes}"));
            Ok(())
        }

        fn launch(&mut self, c: &Command<'_>) -> Result<(), Error> {
            let Command { index, entry, grid, threads, shared, words } = c;
            self.0.push(format!("{index} {entry} {grid:?} {threads} {shared} {words:?}"));
            Ok(())
        }
    }

    fn launch(entry: &str, grid: [&[Factor]; 3]) -> Launch {
        Launch { entry: entry.to_owned(), grid: grid.map(Product::new), threads: 128, shared: 7 }
    }

    fn recorded(interface: &Interface, sizes: &Sizes) -> Result<Vec<String>, Error> {
        let workspace = Workspace::forward(&[("plan", interface)], 2, sizes)?;
        let bases = Bases { saved: 0x10000, scratch: 0x20000 };
        let address = |b: &Buffer| Some((b.name.clone(), workspace.at(&b.name, bases)?.0));
        let buffers = interface.buffers.iter().filter_map(address).collect();
        let tensors = BTreeMap::new();
        let arguments = Arguments {
            module: "plan",
            elem: DType::F32,
            sizes,
            tensors: &tensors,
            buffers: &buffers,
            cu_seqlens: 0,
        };
        let mut recorder = Recorder::default();
        run(interface, &arguments, &workspace, bases, &mut recorder)?;
        Ok(recorder.0)
    }

    fn interface() -> Interface {
        let one = &[Factor::Literal(1)][..];
        let buffer = |name: &str, zeroed| Buffer {
            name: name.to_owned(),
            scalar: Scalar::F32,
            len: Product::new(&[Factor::N]),
            zeroed,
            keep: Keep::Scratch,
        };
        Interface {
            parameters: vec![Parameter::Buffer("count".to_owned()), Parameter::N],
            buffers: vec![buffer("count", true), buffer("list", false)],
            launches: vec![
                launch("sort", [&[Factor::Blocks(64), Factor::Hkv], one, one]),
                launch("scan", [&[Factor::Hkv], &[Factor::Sequences], one]),
                launch("walk", [&[Factor::N], one, &[Factor::Rows]]),
            ],
        }
    }

    #[test]
    fn buffers_are_zeroed_then_kernels_run_in_order() {
        let sizes = Sizes {
            rows: 2,
            sequences: 2,
            n: 100,
            hq: 4,
            hkv: 2,
            packed: false,
            multiprocessors: 4,
        };
        assert_eq!(
            recorded(&interface(), &sizes).unwrap(),
            [
                "zero 0x20000 400",
                "0 sort [8, 1, 1] 128 7 [131072, 100]",
                "1 scan [2, 2, 1] 128 7 [131072, 100]",
                "2 walk [100, 1, 2] 128 7 [131072, 100]",
            ]
        );
    }

    #[test]
    fn empty_grids_are_left_out() {
        let sizes =
            Sizes { rows: 2, sequences: 2, n: 0, hq: 4, hkv: 2, packed: false, multiprocessors: 4 };
        let scan = "1 scan [2, 2, 1] 128 7 [131072, 0]";
        assert_eq!(recorded(&interface(), &sizes).unwrap(), [scan]);
    }

    #[test]
    fn a_grid_beyond_the_hardware_is_an_error_before_anything_runs() {
        let sizes = Sizes {
            rows: 70000,
            sequences: 3,
            n: 5,
            hq: 4,
            hkv: 2,
            packed: false,
            multiprocessors: 4,
        };
        let message = recorded(&interface(), &sizes).unwrap_err().to_string();
        assert!(message.contains("walk needs 70000 blocks along z"), "{message}");
        assert!(message.contains("65535"), "{message}");
    }
}
