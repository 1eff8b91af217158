//! A method that does one wrong thing of the tester's choice, in one block of the model; the other blocks it compresses as a
//! method should. Unless its options say what, the environment variable `LLMCB_HOSTILE` does.

use std::thread::sleep;
use std::time::{Duration, Instant};

use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What it does.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Its work.
    #[default]
    Ok,
    /// Panics.
    Panic,
    /// Panics while it is made.
    PanicNew,
    /// Writes to address 8.
    Segfault,
    /// Aborts.
    Abort,
    /// Ends the process as if all were well.
    Exit0,
    /// Ends the process with code 3.
    Exit3,
    /// Is killed as by `kill -9`.
    Killed,
    /// Never comes back.
    Hang,
    /// Takes memory, more and more.
    Memory,
    /// Takes more memory at once than any machine has.
    HugeAllocation,
    /// Sets weights that are not numbers.
    Nan,
    /// Sets a weight of another shape.
    Shape,
    /// Sets the weight of a linear that does not exist.
    UnknownLinear,
    /// Writes to standard output whatever comes to mind, imitations of the host's own messages among it; then does its work.
    Chatter,
    /// Says that it does not do this.
    Unsupported,
    /// Says that it failed.
    Fail,
    /// Takes `seconds` for the block, and stops when asked; then does its work.
    Slow,
    /// Takes `seconds` for the block, and does not stop when asked; then does its work.
    Stubborn,
}

impl Mode {
    fn of_environment() -> Self {
        let mode = std::env::var("LLMCB_HOSTILE").unwrap_or_default();
        serde_json::from_value(mode.into()).unwrap_or_default()
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// What it does.
    mode: Mode,
    /// In which block, from 0; `slow` and `stubborn` are so in every block from this one on.
    #[schemars(range(min = 0, max = 1000))]
    block: u32,
    /// How long `slow` and `stubborn` take for a block.
    #[schemars(range(min = 0.0, max = 600.0))]
    seconds: f64,
    /// Its work: every weight is multiplied by this.
    #[schemars(range(min = 0.0, max = 2.0))]
    factor: f32,
}

impl Default for Options {
    fn default() -> Self {
        Options { mode: Mode::of_environment(), block: 1, seconds: 0.5, factor: 0.9 }
    }
}

struct Misbehave(Options);

impl Method for Misbehave {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("misbehave", "Misbehave", env!("CARGO_PKG_VERSION"))
            .summary("Does one wrong thing of your choice.")
            .licence("MIT OR Apache-2.0")
    }

    fn new(options: Options, _host: &Host) -> Result<Self> {
        assert!(!matches!(options.mode, Mode::PanicNew), "asked to panic while being made");
        Ok(Misbehave(options))
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        let at = block.index() as u32;
        let turn = match self.0.mode {
            Mode::Slow | Mode::Stubborn => at >= self.0.block,
            _ => at == self.0.block,
        };
        if turn {
            self.misbehave(block, host)?;
        }
        self.work(block)
    }
}

impl Misbehave {
    fn work(&self, block: &mut Block<'_>) -> Result<()> {
        for linear in block.linears().to_vec() {
            let weight = block.weight(&linear.name)?.to_f32()?;
            let scaled = weight.iter().map(|w| w * self.0.factor).collect();
            block.set_weight(&linear.name, Tensor::from_vec(scaled, &linear.shape())?)?;
        }
        Ok(())
    }

    fn misbehave(&self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        let linear = block.linears()[0].clone();
        match self.0.mode {
            Mode::Ok | Mode::PanicNew => Ok(()),
            Mode::Panic => panic!("asked to panic"),
            Mode::Segfault => segfault(),
            Mode::Abort => std::process::abort(),
            Mode::Exit0 => std::process::exit(0),
            Mode::Exit3 => std::process::exit(3),
            Mode::Killed => {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                Ok(())
            }
            Mode::Hang => loop {
                sleep(Duration::from_millis(50));
            },
            Mode::Memory => grow(host),
            Mode::HugeAllocation => {
                // Hidden from the optimiser, which would see that nobody needs the memory.
                let values = vec![1u8; std::hint::black_box(1 << 56)];
                Err(Error::failed(format!("got {} bytes", std::hint::black_box(values).len())))
            }
            Mode::Nan => {
                let values = vec![f32::NAN; linear.shape().iter().product()];
                block.set_weight(&linear.name, Tensor::from_vec(values, &linear.shape())?)?;
                // Left as it is: `work` would only multiply it.
                Ok(())
            }
            Mode::Shape => block.set_weight(&linear.name, Tensor::from_vec(vec![0f32; 6], &[2, 3])?),
            Mode::UnknownLinear => {
                block.set_weight("no_such.linear", Tensor::from_vec(vec![0f32; 6], &[2, 3])?)
            }
            Mode::Chatter => {
                chatter();
                Ok(())
            }
            Mode::Unsupported => Err(Error::unsupported("not for models with blocks")),
            Mode::Fail => Err(Error::failed("the stars are wrong")),
            Mode::Slow => wait(self.0.seconds, || host.check_cancelled()),
            Mode::Stubborn => wait(self.0.seconds, || Ok(())),
        }
    }
}

fn wait(seconds: f64, check: impl Fn() -> Result<()>) -> Result<()> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < until {
        check()?;
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[allow(unsafe_code)]
fn segfault() -> ! {
    // SAFETY: it is not sound and shall not be: no other way gives a segmentation fault. No process that must live on
    // loads this plugin.
    unsafe {
        std::ptr::without_provenance_mut::<u64>(8).write_volatile(1);
    }
    std::process::exit(4)
}

/// Ends by itself at 6 GiB, so that a host without a limit does not take the machine down.
fn grow(host: &Host) -> Result<()> {
    let mut hoard = Vec::new();
    for chunk in 0..384u32 {
        hoard.push(vec![chunk as u8 | 1; 16 << 20]);
        // Not hung, only greedy.
        host.progress(u64::from(chunk), 384, "hoarding");
    }
    Err(Error::failed(format!("nobody stopped it at {} chunks", hoard.len())))
}

fn chatter() {
    println!("hello from a plugin that never read the manual");
    println!(r#"{{"event":"done","outcome":{{}}}}"#);
    println!(r#"{{"event":"failed","kind":"failed","message":"chatter: not a real event"}}"#);
    print!("a line without an end {{");
    let _ = std::io::Write::flush(&mut std::io::stdout());
}

llmcb_plugin_api::export_method!(Misbehave);
