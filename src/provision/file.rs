//! Carries files and folders to and from the guest, by commands alone: so it works over every kind of connection.
//!
//! What goes over is one file (a folder as a tar archive), in one go or in pieces of a few MiB, into a private temporary
//! folder of the guest. There its SHA-256 is compared, and only then it is put in its place: a single file is renamed, on
//! another file system from a temporary name beside its target, so that nobody ever sees half of it. Downloads go the same
//! way back.
//!
//! A `/` at the end of a folder's path means what it means to rsync: `conf/` is what is in the folder, `conf` the
//! folder itself. A file whose target ends in `/`, or is a folder, keeps its name.

use std::fmt::Write as _;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forge_machine::{Command, ExecOutcome, Guest, OutputSink, Stream};
use sha2::{Digest as _, Sha256};

use super::{Direction, FileStep, OutputObserver, ProvisionError};
use crate::remote::quote::sh;
use crate::remote::{RemoteScript, ScriptEnd, ScriptOutput, run_script};

/// How much goes over at once.
const PIECE: usize = 4 << 20;
/// How often it is looked how far a file is that goes over in one go.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long one piece may take: a link of 14 kB/s is slow enough.
const PIECE_LIMIT: Duration = Duration::from_secs(300);
/// How large a block of `dd` is.
const BLOCK: usize = 1 << 20;

/// A temporary folder on the disk, where `/tmp` may be memory.
const MAKE_ROOM: &str = "umask 077; t=${TMPDIR:-}; [ -n \"$t\" ] || { t=/var/tmp; [ -w \"$t\" ] || t=/tmp; }; mktemp -d \"$t/forge-XXXXXXXXXX\"";

/// Says in `$there` what a path means to a shell: `~` is the home of whoever runs this, who is at home, `~ann` that of ann.
const EXPAND: &str = "expand() {\n\
    there=$1\n\
    case $1 in\n\
    '~') there=$(pwd) ;;\n\
    '~/'*) there=$(pwd)/${1#??} ;;\n\
    '~'[A-Za-z_]*)\n\
    user=${1#?}\n\
    user=${user%%/*}\n\
    case $user in *[!A-Za-z0-9._-]*) return 0 ;; esac\n\
    eval \"there=~$user\"\n\
    [ \"$there\" != \"~$user\" ] || { echo \"$1: the guest has no user $user\" >&2; exit 1; }\n\
    there=$there${1#\"~$user\"} ;;\n\
    esac\n\
    }\n";

const CHECK: &str = "set -- $(sha256sum <\"$FORGE_PART\")\n\
    [ \"$1\" = \"$FORGE_SUM\" ] || { echo \"the checksum differs: $1 instead of $FORGE_SUM\" >&2; exit 1; }\n\
    expand \"$FORGE_TO\"\n\
    FORGE_TO=$there\n";

/// A file that is moved there has nothing of its new folder: neither its group (`-g`), nor a label of SELinux, nor what new
/// files inherit. A folder with a default ACL takes no notice of a umask.
const PLACE_FILE: &str = "case $FORGE_TO in\n\
    */) FORGE_TO=$FORGE_TO$FORGE_NAME ;;\n\
    *) if [ -d \"$FORGE_TO\" ]; then FORGE_TO=$FORGE_TO/$FORGE_NAME; fi ;;\n\
    esac\n\
    mkdir -p -- \"$(dirname -- \"$FORGE_TO\")\"\n\
    new=$FORGE_TO.forge-$$\n\
    trap 'rm -f -- \"$new\"' EXIT\n\
    place=$(dirname -- \"$FORGE_TO\")\n\
    inherits() {\n\
    (umask 777; : >\"$new\") 2>/dev/null || :\n\
    bits=$(stat -c %a -- \"$new\" 2>/dev/null) || :\n\
    rm -f -- \"$new\"\n\
    [ \"$bits\" != 0 ]\n\
    }\n\
    if [ ! -e /sys/fs/selinux/enforce ] && [ ! -g \"$place\" ] && \\\n\
      [ \"$(stat -c %d -- \"$FORGE_PART\")\" = \"$(stat -c %d -- \"$place\")\" ] && ! inherits && \\\n\
      { [ -O \"$FORGE_PART\" ] || chown \"$(id -u):$(id -g)\" -- \"$FORGE_PART\"; }; then\n\
    new=$FORGE_PART\n\
    else\n\
    cat <\"$FORGE_PART\" >\"$new\"\n\
    fi\n\
    chmod \"$FORGE_MODE\" -- \"$new\"\n\
    mv -f -- \"$new\" \"$FORGE_TO\"\n";

const PLACE_FOLDER: &str = "mkdir -p -- \"$FORGE_TO\"\ntar -xpof \"$FORGE_PART\" -C \"$FORGE_TO\"\n";

const FETCH: &str = "expand \"$FORGE_FROM\"\n\
    FORGE_FROM=$there\n\
    if [ -d \"$FORGE_FROM\" ]; then\n\
    kind=folder\n\
    case $FORGE_FROM in\n\
    */) tar -cf - -C \"$FORGE_FROM\" . >\"$FORGE_PART\" ;;\n\
    *) tar -cf - -C \"$(dirname -- \"$FORGE_FROM\")\" -- \"$(basename -- \"$FORGE_FROM\")\" >\"$FORGE_PART\" ;;\n\
    esac\n\
    else\n\
    kind=file\n\
    cat <\"$FORGE_FROM\" >\"$FORGE_PART\"\n\
    fi\n\
    set -- $(sha256sum <\"$FORGE_PART\") $(wc -c <\"$FORGE_PART\")\n";

/// Carries what a step says.
///
/// # Errors
/// With the file and the reason; what was in the place before is still there then.
pub(super) async fn carry(
    guest: &dyn Guest,
    step: &FileStep,
    observer: &mut dyn OutputObserver,
) -> Result<(), ProvisionError> {
    let (verb, arrow) = match step.direction {
        Direction::Upload => ("upload", "to"),
        Direction::Download => ("download", "from"),
    };
    let near = if step.content.is_some() { "the text".to_owned() } else { step.local.display().to_string() };
    let what = match step.direction {
        Direction::Upload => format!("the {verb} of {near} {arrow} {} failed", step.remote),
        Direction::Download => format!("the {verb} {arrow} {} to {near} failed", step.remote),
    };
    let room = match make_room(guest).await {
        Ok(room) => room,
        Err(why) => return Err(ProvisionError::Transfer { what, why }),
    };
    let part = format!("{room}/part");
    let result = match step.direction {
        Direction::Upload => upload(guest, step, &part, observer).await,
        Direction::Download => download(guest, step, &part, observer).await,
    };
    remove_room(guest, &room).await;
    result.map_err(|why| ProvisionError::Transfer { what, why })
}

/// Makes a private temporary folder in the guest.
pub(super) async fn make_room(guest: &dyn Guest) -> Result<String, String> {
    let text = run(guest, MAKE_ROOM, Vec::new(), &mut Vec::new()).await?;
    let room = String::from_utf8_lossy(&text).trim().to_owned();
    if room.contains("/forge-") { Ok(room) } else { Err(format!("no temporary folder in the guest: {room}")) }
}

/// Removes such a folder.
pub(super) async fn remove_room(guest: &dyn Guest, room: &str) {
    if let Err(error) = run(guest, &format!("rm -rf {}", sh(room)), Vec::new(), &mut Vec::new()).await {
        tracing::debug!(%error, "the temporary folder is left behind");
    }
}

/// Runs a command line; its standard output, or why it failed.
async fn run(guest: &dyn Guest, line: &str, stdin: Vec<u8>, into: &mut Vec<u8>) -> Result<Vec<u8>, String> {
    let command = Command { stdin, timeout: Some(PIECE_LIMIT), ..Command::new(line) };
    carried_out(guest, &command, into).await
}

/// The same of a command.
async fn carried_out(guest: &dyn Guest, command: &Command, into: &mut Vec<u8>) -> Result<Vec<u8>, String> {
    struct Split<'a> {
        out: &'a mut Vec<u8>,
        err: Vec<u8>,
    }
    impl OutputSink for Split<'_> {
        fn write(&mut self, stream: Stream, bytes: &[u8]) {
            match stream {
                Stream::Stdout => self.out.extend_from_slice(bytes),
                Stream::Stderr if self.err.len() < 4096 => self.err.extend_from_slice(bytes),
                Stream::Stderr => {}
            }
        }
    }
    let mut output = Split { out: into, err: Vec::new() };
    let outcome = guest.exec(command, &mut output).await;
    let said = String::from_utf8_lossy(&output.err).trim().to_owned();
    match outcome {
        Ok(ExecOutcome::Exited(0)) => Ok(std::mem::take(output.out)),
        Ok(ExecOutcome::Exited(status)) if said.is_empty() => {
            Err(format!("a command exited with status {status}"))
        }
        Ok(ExecOutcome::Exited(_)) => Err(said),
        Ok(ExecOutcome::Signalled) => Err("a command was killed by a signal".into()),
        Ok(ExecOutcome::Disconnected) => Err("the connection to the guest was lost".into()),
        Err(error) => Err(crate::engine::error::chain(&error)),
    }
}

/// What goes over: an open file, its length and checksum.
struct Parcel {
    file: std::fs::File,
    length: u64,
    sum: String,
    folder: bool,
    mode: u32,
}

fn ends_in_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn pack(step: &FileStep) -> std::io::Result<Parcel> {
    let (mut file, folder, mode) = if let Some(text) = &step.content {
        let mut file = tempfile::tempfile()?;
        file.write_all(text.as_bytes())?;
        (file, false, 0o644)
    } else {
        let facts = std::fs::metadata(&step.local)?;
        if facts.is_dir() {
            if step.mode.is_some() {
                return Err(std::io::Error::other("it is a folder, and `mode` is for a single file"));
            }
            let mut archive = tar::Builder::new(tempfile::tempfile()?);
            archive.follow_symlinks(false);
            let name = match step.local.file_name() {
                Some(name) if !ends_in_slash(&step.local) => Path::new(name),
                _ => Path::new(""),
            };
            archive.append_dir_all(name, &step.local)?;
            (archive.into_inner()?, true, 0)
        } else if !facts.is_file() {
            return Err(std::io::Error::other("it is neither a file nor a folder"));
        } else {
            (std::fs::File::open(&step.local)?, false, facts.permissions().mode() & 0o7777)
        }
    };
    file.seek(SeekFrom::Start(0))?;
    let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(buffer.get(..n).unwrap_or_default());
        length += n as u64;
    }
    file.seek(SeekFrom::Start(0))?;
    let mode = step.mode.unwrap_or(mode);
    Ok(Parcel { file, length, sum: hex(&hash.finalize()), folder, mode })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

async fn upload(
    guest: &dyn Guest,
    step: &FileStep,
    part: &str,
    observer: &mut dyn OutputObserver,
) -> Result<(), String> {
    let copy = step.clone();
    let mut parcel = blocking(move || pack(&copy)).await?;
    let shown =
        step.local.file_name().map_or(step.remote.clone(), |name| name.to_string_lossy().into_owned());
    if guest.takes_files() {
        let pieces = u32::try_from(parcel.length / PIECE as u64).unwrap_or(u32::MAX);
        let file = Arc::new(parcel.file);
        let command = Command {
            file: Some(file.clone()),
            timeout: Some(PIECE_LIMIT.saturating_mul(pieces.saturating_add(1))),
            ..Command::new(format!("cat >>{}", sh(part)))
        };
        let mut nothing = Vec::new();
        let mut going = std::pin::pin!(carried_out(guest, &command, &mut nothing));
        loop {
            tokio::select! {
                done = &mut going => break done.map(drop)?,
                () = tokio::time::sleep(LOOK_EVERY) => {
                    // Whoever reads it moves this position too; a little of it is still on its way.
                    let read = (&*file).stream_position().unwrap_or_default();
                    observer.moved(&shown, read, parcel.length, true);
                }
            }
        }
    } else {
        let mut left = parcel.length;
        let line = format!("cat >>{}", sh(part));
        loop {
            let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let (piece, file) = blocking(move || {
                let mut piece = vec![0; size];
                parcel.file.read_exact(&mut piece)?;
                Ok((piece, parcel.file))
            })
            .await?;
            parcel.file = file;
            run(guest, &line, piece, &mut Vec::new()).await?;
            left -= size as u64;
            observer.moved(&shown, parcel.length - left, parcel.length, true);
            if left == 0 {
                break;
            }
        }
    }
    let place = if parcel.folder { PLACE_FOLDER } else { PLACE_FILE };
    let name = step.local.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let script = RemoteScript {
        env: [
            ("FORGE_PART", part.to_owned()),
            ("FORGE_SUM", parcel.sum.clone()),
            ("FORGE_TO", step.remote.clone()),
            ("FORGE_NAME", name),
            ("FORGE_MODE", format!("{:o}", parcel.mode & 0o7777)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect(),
        become_root: step.become_root,
        ..RemoteScript::sh(format!("{EXPAND}{CHECK}{place}"))
    };
    scripted(guest, &script).await?;
    observer.line(&format!("{} bytes, sha256 {}", parcel.length, parcel.sum), false);
    Ok(())
}

/// Runs a script that must exit with 0; the marks that it printed.
async fn scripted(guest: &dyn Guest, script: &RemoteScript) -> Result<Vec<String>, String> {
    struct Marks(Vec<String>);
    impl ScriptOutput for Marks {
        fn line(&mut self, _line: &str, _stderr: bool) {}

        fn mark(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }
    let mut marks = Marks(Vec::new());
    let run =
        run_script(guest, script, &mut marks).await.map_err(|error| crate::engine::error::chain(&error))?;
    match run.end {
        ScriptEnd::Exited(0) => Ok(marks.0),
        ScriptEnd::Exited(status) if run.tail.is_empty() => Err(format!("status {status}")),
        ScriptEnd::Exited(_) => Err(run.tail.join("; ")),
        ScriptEnd::NoRoot(tried) => {
            Err(format!("it wants to be root, and the guest offers no way ({tried})"))
        }
        ScriptEnd::Truncated(_) => Err("the connection to the guest was lost".into()),
        ScriptEnd::TimedOut(limit) => Err(format!("not done within {limit:?}")),
    }
}

async fn download(
    guest: &dyn Guest,
    step: &FileStep,
    part: &str,
    observer: &mut dyn OutputObserver,
) -> Result<(), String> {
    // Made by the user who is logged in, so that the pieces can be read without being root.
    run(guest, &format!("umask 077; : >{}", sh(part)), Vec::new(), &mut Vec::new()).await?;
    let mut script = RemoteScript::sh("");
    let told =
        format!("printf '%s file %s %s %s\\n' {} \"$kind\" \"$1\" \"$3\"\n", sh(script.sentinel.nonce()));
    script.content = format!("{EXPAND}{FETCH}{told}").into_bytes();
    script.env = [("FORGE_FROM", step.remote.as_str()), ("FORGE_PART", part)]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    script.become_root = step.become_root;
    let marks = scripted(guest, &script).await?;
    let facts = marks.iter().find_map(|mark| {
        let mut words = mark.strip_prefix("file ")?.split(' ');
        Some((words.next()? == "folder", words.next()?.to_owned(), words.next()?.parse::<u64>().ok()?))
    });
    let Some((folder, sum, length)) = facts else { return Err("the guest did not tell the checksum".into()) };
    let target = step.local.clone();
    let remote_name = step.remote.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    if folder && step.mode.is_some() {
        return Err("it is a folder, and `mode` is for a single file".into());
    }
    let into = if !folder && (ends_in_slash(&target) || target.is_dir()) {
        target.join(&remote_name)
    } else {
        target
    };
    let parent = if folder { into.clone() } else { into.parent().unwrap_or(Path::new("")).to_owned() };
    let mut file = blocking(move || {
        let parent = if parent.as_os_str().is_empty() { Path::new(".").to_owned() } else { parent };
        std::fs::create_dir_all(&parent)?;
        let everybody = std::fs::Permissions::from_mode(0o666);
        tempfile::Builder::new().prefix(".forge-").permissions(everybody).tempfile_in(parent)
    })
    .await?;
    let (mut hash, mut have) = (Sha256::new(), 0_u64);
    let count = PIECE / BLOCK;
    while have < length {
        let skip = have / BLOCK as u64;
        let line = format!("dd if={} bs={BLOCK} skip={skip} count={count} 2>/dev/null", sh(part));
        let piece = run(guest, &line, Vec::new(), &mut Vec::new()).await?;
        let expected = (length - have).min(PIECE as u64);
        if piece.len() as u64 != expected {
            return Err(format!("{} bytes came instead of {expected}", piece.len()));
        }
        hash.update(&piece);
        have += expected;
        observer.moved(&remote_name, have, length, false);
        file = blocking(move || {
            file.write_all(&piece)?;
            Ok(file)
        })
        .await?;
    }
    let seen = hex(&hash.finalize());
    if seen != sum {
        return Err(format!("the checksum differs: {seen} instead of {sum}"));
    }
    let mode = step.mode;
    blocking(move || {
        if let Some(mode) = mode {
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
        if folder {
            let mut file = file.reopen()?;
            file.seek(SeekFrom::Start(0))?;
            // Refuses paths that lead out of the folder.
            tar::Archive::new(file).unpack(&into)
        } else {
            file.as_file().sync_all()?;
            file.persist(&into).map(drop).map_err(|error| error.error)
        }
    })
    .await?;
    observer.line(&format!("{length} bytes, sha256 {sum}"), false);
    Ok(())
}
