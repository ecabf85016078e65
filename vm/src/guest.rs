// SPDX-License-Identifier: Apache-2.0
//! One boot of a guest: shares the host's files, starts QEMU, follows what the guest says, and ends
//! it in time.
//!
//! A guest has the host's root below an overlay in its own memory: the same paths and the same
//! programs, and nothing that it writes stays. Processes that are started here end with this program
//! also when it is killed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use crate::ending;
use crate::hang;
use crate::image::Image;
use crate::list::Boot;
use crate::list::Cgroup;
use crate::stream::Part;
use crate::stream::Stream;
use crate::ticks;

/// The beginning of every guest's script.
const SCRIPT: &str = include_str!("../guest");
/// How long a guest may take to its first stage, between two stages, and to end: on a busy machine,
/// some twenty times what it takes on a quiet one.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// How much longer than its own limit a stage may take as the host sees it, before the whole guest
/// is taken to hang.
const STAGE_GRACE: Duration = Duration::from_secs(30);
/// How often the guest is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// A guest that says more than this is ended.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// How much of the console is shown: enough for the stacks of a guest that hung.
const CONSOLE_LINES: usize = 40;
const CONSOLE_LINES_HUNG: usize = 2000;
/// Where distributions put the program that shares the host's files.
const SHARERS: [&str; 3] = [
    "/usr/libexec/virtiofsd",
    "/usr/lib/qemu/virtiofsd",
    "/usr/bin/virtiofsd",
];

/// A program to run in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) stage: String,
    pub(crate) limit: Duration,
    pub(crate) folder: PathBuf,
    pub(crate) command: Vec<String>,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It came to the end of its script.
    Done,
    /// It, or QEMU, ended before.
    Died(String),
    /// It did not go on, and was ended.
    Hung(String),
}

/// What became of a boot.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// What the stages wrote to their standard output, those that began.
    pub(crate) out: Vec<Part>,
    /// The same for standard error, by stage.
    pub(crate) err: BTreeMap<String, String>,
    /// What the kernel said on its console.
    pub(crate) console: String,
    pub(crate) took: Duration,
}

/// Ends a process with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Either may fail because the process has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots a kernel and runs these programs in it; `watch` is given the output as it comes.
pub(crate) fn run(
    image: &Image,
    boot: &Boot,
    jobs: &[Job],
    watch: &mut dyn FnMut(&[u8]),
) -> Result<Outcome> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the matrix needs root: it shares the host's files with a guest"
    );
    let folder = tempfile::Builder::new()
        .prefix(&ending::prefix())
        .tempdir()?;
    let folder = folder.path();
    let mark = mark();
    fs::write(folder.join("script"), script(&mark, jobs))?;
    for name in ["out", "err", "console"] {
        fs::write(folder.join(name), "")?;
    }
    let started = Instant::now();
    let _sharer = share(folder)?;
    let mut qemu = Ended(
        qemu(image, boot, folder)
            .stdin(Stdio::null())
            .stdout(File::create(folder.join("qemu"))?)
            .stderr(File::create(folder.join("qemu-errors"))?)
            .spawn()
            .context("cannot start QEMU")?,
    );
    let mut stream = Stream::new(&mark);
    let end = follow(&mut qemu.0, folder, jobs, &mut stream, watch)?;
    drop(qemu);
    let mut errors = Stream::new(&mark);
    errors.push(&fs::read(folder.join("err"))?);
    Ok(Outcome {
        end,
        out: stream.parts,
        err: errors.parts.into_iter().map(|p| (p.name, p.text)).collect(),
        console: String::from_utf8_lossy(&fs::read(folder.join("console"))?).into_owned(),
        took: started.elapsed(),
    })
}

/// What no output is taken for: begins each line about a stage, in this run alone.
pub(crate) fn mark() -> String {
    format!("@lacuna-{}", std::process::id())
}

/// What bash runs in the guest.
fn script(mark: &str, jobs: &[Job]) -> String {
    let mut text = format!("{SCRIPT}\nmark={mark}\n");
    if let Some(path) = std::env::var_os("PATH") {
        let _ = writeln!(text, "export PATH={}", quoted(&path.to_string_lossy()));
    }
    for job in jobs {
        let folder = quoted(&job.folder.to_string_lossy());
        let _ = write!(
            text,
            "stage {} {} {folder}",
            quoted(&job.stage),
            job.limit.as_secs()
        );
        for word in &job.command {
            let _ = write!(text, " {}", quoted(word));
        }
        text.push('\n');
    }
    text.push_str("finish\n");
    text
}

/// A word as bash reads it back.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Shares the host's root with the guest, through a socket in this folder.
fn share(folder: &Path) -> Result<Ended> {
    let sharer = SHARERS.iter().find(|path| Path::new(path).exists());
    let sharer = sharer.context("no virtiofsd: `make deps` installs it")?;
    let socket = folder.join("files");
    let mut command = bound_to_us(sharer);
    // The one that came with QEMU before 8.0 has options of its own.
    match sharer.contains("/qemu/") {
        true => command
            .arg(format!("--socket-path={}", socket.display()))
            .args(["-o", "source=/,cache=always,sandbox=chroot,xattr"])
            .args(["-o", "log_level=err", "--thread-pool-size=2"]),
        false => command
            .arg(format!("--socket-path={}", socket.display()))
            .args(["--shared-dir=/", "--cache=always", "--sandbox=chroot"])
            .args(["--xattr", "--log-level=error"]),
    };
    let log = File::create(folder.join("files-errors"))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {sharer}"))?;
    let sharer = Ended(child);
    let deadline = Instant::now() + SILENCE_MAX;
    while !fs::metadata(&socket).is_ok_and(|file| file.file_type().is_socket()) {
        ensure!(
            Instant::now() < deadline,
            "virtiofsd did not start: {}",
            fs::read_to_string(folder.join("files-errors"))?.trim()
        );
        sleep(LOOK);
    }
    Ok(sharer)
}

/// A command that is killed when this program ends, however it ends.
fn bound_to_us(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

fn qemu(image: &Image, boot: &Boot, folder: &Path) -> Command {
    let memory = boot.memory_mib;
    let path = |name: &str| folder.join(name).display().to_string();
    let mut command = bound_to_us("qemu-system-x86_64");
    command
        // All virtual CPUs in one thread. With a thread for each, QEMU (7.2 and 10.0 were tried) drops what
        // it made of an instruction before that is overwritten: another CPU that comes by in between keeps
        // the old one for ever. Kernels change their code where tracepoints are attached: a guest of 7.2 died
        // of the breakpoint that was there no longer, and one of 6.1 met it again and again, within
        // 10 minutes of attaching and detaching. One thread costs as much, and a tenth more time.
        .args(["-accel", "tcg,thread=single"])
        // QEMU 7.2 now and then corrupts the flags after a cmpxchg16b, and a guest dies of a double
        // fault within seconds of allocating memory under load; 57-bit addresses only cost time.
        .args(["-cpu", "max,la57=off,cx16=off"])
        .args(["-smp", &boot.cpus.to_string(), "-m", &memory.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .arg("-no-reboot")
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", path(hang::MONITOR)))
        .arg("-object")
        .arg(format!(
            "memory-backend-memfd,id=mem,size={memory}M,share=on"
        ))
        .args(["-machine", "q35,memory-backend=mem"])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.ramdisk)
        .args(["-append", &arguments(image, boot, folder)])
        .args(["-serial", &format!("file:{}", path("console"))])
        .args([
            "-chardev",
            &format!("socket,id=files,path={}", path("files")),
        ])
        .args(["-device", "vhost-user-fs-pci,chardev=files,tag=lacuna"])
        .args(["-device", "virtio-serial-pci"]);
    for port in ["out", "err"] {
        command
            .args(["-chardev", &format!("file,id={port},path={}", path(port))])
            .args([
                "-device",
                &format!("virtserialport,chardev={port},name=lacuna.{port}"),
            ]);
    }
    command
}

/// The kernel's command line.
fn arguments(image: &Image, boot: &Boot, folder: &Path) -> String {
    let cgroup = match boot.cgroup {
        Cgroup::V1 => "v1",
        Cgroup::V2 => "v2",
        Cgroup::Hybrid => "hybrid",
    };
    let mut words = vec![
        "console=ttyS0 loglevel=5 panic=-1 mitigations=off nokaslr".to_owned(),
        // A busy host makes the watchdog distrust a clock that is right.
        "tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests".to_owned(),
        format!("tsc_early_khz={}", ticks::khz()),
        hang::ARGUMENTS.to_owned(),
        "lacuna.guest=1".to_owned(),
        format!("lacuna.cgroup={cgroup}"),
        format!("lacuna.dir={}", folder.display()),
        format!("lacuna.modules={}", image.modules.display()),
    ];
    // Without cmpxchg16b these kernels allocate BPF's local storage only from caches with debugging
    // (kmalloc_nolock): task storage would silently stay empty.
    if is_from(&image.release, (6, 19)) {
        words.push("slab_debug=F,kmalloc-*".to_owned());
    }
    words.push(boot.arguments.clone());
    words.join(" ")
}

/// Whether a release is of this version or a later one.
fn is_from(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse().ok());
    match (next(), next()) {
        (Some(major), Some(minor)) => (major, minor) >= version,
        _ => false,
    }
}

/// Follows the guest to its end, and ends it when it does not go on.
fn follow(
    qemu: &mut Child,
    folder: &Path,
    jobs: &[Job],
    stream: &mut Stream,
    watch: &mut dyn FnMut(&[u8]),
) -> Result<End> {
    let mut file = File::open(folder.join("out"))?;
    let mut step = (0, None);
    let mut since = Instant::now();
    let mut bytes_read = 0;
    loop {
        let ended = qemu.try_wait()?;
        let mut bytes = Vec::new();
        bytes_read += file.read_to_end(&mut bytes)? as u64;
        stream.push(&bytes);
        watch(&bytes);
        if stream.done {
            return Ok(End::Done);
        }
        if let Some(status) = ended {
            let said = fs::read_to_string(folder.join("qemu-errors"))?;
            return Ok(End::Died(format!("QEMU ended ({status}) {}", said.trim())));
        }
        let now = (stream.parts.len(), stream.running().map(str::to_owned));
        if now != step {
            (step, since) = (now, Instant::now());
        }
        let job = jobs.iter().find(|job| step.1.as_ref() == Some(&job.stage));
        let limit = job.map_or(SILENCE_MAX, |job| job.limit + STAGE_GRACE);
        if since.elapsed() > limit || bytes_read > OUTPUT_BYTES_MAX {
            let place = step.1.map_or_else(
                || "outside any stage".to_owned(),
                |stage| format!("in stage {stage}"),
            );
            let seconds = since.elapsed().as_secs();
            let mut how = format!("{place}, {seconds} s and {bytes_read} bytes after it began");
            if let Err(error) = hang::print_stacks(folder) {
                let _ = write!(how, "; what it does cannot be told: {error}");
            }
            return Ok(End::Hung(how));
        }
        sleep(LOOK);
    }
}

impl Outcome {
    /// The end of the console, as much as helps.
    pub(crate) fn last_words(&self) -> String {
        let lines: Vec<&str> = self.console.lines().collect();
        let shown = match self.end {
            End::Hung(_) => CONSOLE_LINES_HUNG,
            End::Done | End::Died(_) => CONSOLE_LINES,
        };
        lines[lines.len().saturating_sub(shown)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::Job;
    use super::is_from;
    use super::script;
    use crate::stream::Stream;
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn versions_compare_by_their_numbers() {
        assert!(is_from("7.2.13+deb14-cloud-amd64", (6, 19)));
        assert!(is_from("6.19.0", (6, 19)));
        assert!(!is_from("6.12.107+deb13-cloud-amd64", (6, 19)));
        assert!(!is_from("5.10.0-43-cloud-amd64", (6, 19)));
        assert!(!is_from("", (6, 19)));
    }

    /// The script runs here as it does in a guest, but for the ports and the end.
    #[test]
    fn the_script_runs_each_stage_with_its_words_and_its_limit() {
        let job = |stage: &str, limit: u64, words: &[&str]| Job {
            stage: stage.to_owned(),
            limit: Duration::from_secs(limit),
            folder: PathBuf::from("/tmp"),
            command: words.iter().map(|word| (*word).to_owned()).collect(),
        };
        let jobs = [
            job("words", 5, &["printf", "%s|", "a b", "it's", "$HOME"]),
            job("fails", 5, &["sh", "-c", "echo no >&2; exit 7"]),
            job("hangs", 1, &["sleep", "60"]),
        ];
        let text = script("@9", &jobs);
        let (head, rest) = text.split_once("for port in").unwrap();
        let (_, rest) = rest.split_once("exec 3>\"$out\" 4>\"$err\"\n").unwrap();
        let end = "exec 3>&- 4>&-\n    echo b >/proc/sysrq-trigger\n    sleep 60\n";
        assert!(
            rest.contains(end),
            "the end of a guest must not be run here"
        );
        let text = format!("{head}exec 3>&1 4>&2\n{}", rest.replace(end, ""));
        let output = Command::new("bash").args(["-c", &text]).output().unwrap();
        let mut out = Stream::new("@9");
        out.push(&output.stdout);
        assert!(out.done, "{out:?}");
        let [words, fails, hangs] = &out.parts[..] else {
            panic!("{out:?}");
        };
        assert_eq!(words.text.trim(), "a b|it's|$HOME|");
        assert_eq!(words.status, Some(0));
        assert_eq!(fails.status, Some(7));
        assert_eq!(hangs.status, Some(124));
        let mut err = Stream::new("@9");
        err.push(&output.stderr);
        assert_eq!(err.parts[1].text.trim(), "no");
    }
}
