//! The package as a file: a tar of its members, encrypted as age v1.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use everpoint_core::FailureClass;
use tar::{Builder, EntryType, Header};

use super::member::{Made, Sum, Summed};
use crate::AppError;

/// Bytes read and written at once.
const BUFFER: usize = 1 << 20;

/// What stands in front of the members that lie in scratch: path and bytes.
pub(super) type Front = (String, Vec<u8>);

/// Fills the file, which is new and lies at `path`, takes the members away as they are in it, and makes it durable. Returns its size and SHA-256.
pub(super) fn write(
    file: File,
    path: &Path,
    recipients: &[age::x25519::Recipient],
    front: &[Front],
    members: &[Made],
    seconds: u64,
) -> Result<(u64, String), AppError> {
    let io = |error| AppError::io("write the package", path, error);
    let file = Summed::new(BufWriter::with_capacity(BUFFER, file));
    let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|one| one as &dyn age::Recipient))
        .map_err(|error| io(io::Error::other(error.to_string())))?;
    let mut builder = Builder::new(encryptor.wrap_output(file).map_err(io)?);
    for (name, bytes) in front {
        append(&mut builder, name, bytes.len() as u64, seconds, bytes.as_slice()).map_err(io)?;
    }
    for made in members {
        let source = File::open(&made.file).map_err(|error| AppError::io("read", &made.file, error))?;
        let mut source = Summed::new(BufReader::with_capacity(BUFFER, source));
        append(&mut builder, &made.member.path, made.member.size, seconds, &mut source).map_err(io)?;
        // What was read back from scratch must be what was summed when it was written.
        let (size, sha256) = source.into_parts().1.finish();
        if (size, &sha256) != (made.member.size, &made.member.sha256) {
            let message = "it was changed or damaged in scratch while the package was made";
            return Err(AppError::new(
                "package.scratch",
                FailureClass::Failed,
                "pack",
                &made.member.path,
                message,
            )
            .hint("check the disk of scratch_dir, then run it again"));
        }
        std::fs::remove_file(&made.file).map_err(|error| AppError::io("remove", &made.file, error))?;
    }
    let (mut inner, sum) = builder.into_inner().and_then(|out| out.finish()).map_err(io)?.into_parts();
    inner.flush().map_err(io)?;
    inner.get_ref().sync_all().map_err(io)?;
    Ok(sum.finish())
}

fn append<W: Write>(
    builder: &mut Builder<W>,
    name: &str,
    size: u64,
    seconds: u64,
    data: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o600);
    header.set_mtime(seconds);
    header.set_size(size);
    builder.append_data(&mut header, name, data)
}

/// Opens the file for reading its tar.
///
/// # Errors
/// `Damaged` if it is none, or none of the identities opens it.
pub(super) fn open(path: &Path, identities: &[age::x25519::Identity]) -> Result<impl Read, AppError> {
    let file = File::open(path).map_err(|error| AppError::io("open the package", path, error))?;
    let wrong = |error: age::DecryptError| {
        let message = match error {
            age::DecryptError::NoMatchingKeys => "it is encrypted to other recipients".to_owned(),
            other => format!("it is no package, or damaged: {other}"),
        };
        AppError::new("package.closed", FailureClass::Damaged, "open", path.display().to_string(), message)
            .hint("give the key of the repository (--key-file), or the age identity of a recipient (--identity)")
    };
    let decryptor = age::Decryptor::new_buffered(BufReader::with_capacity(BUFFER, file)).map_err(wrong)?;
    let keys: Vec<&dyn age::Identity> = identities.iter().map(|one| one as &dyn age::Identity).collect();
    decryptor.decrypt(keys.into_iter()).map_err(wrong)
}

/// Reads the file again from the disk: SHA-256 of it.
pub(super) fn sum(path: &Path) -> Result<(u64, String), AppError> {
    let io = |error| AppError::io("read the package", path, error);
    let mut file = File::open(path).map_err(io)?;
    let (mut sum, mut buffer) = (Sum::new(), vec![0; BUFFER]);
    loop {
        let read = file.read(&mut buffer).map_err(io)?;
        if read == 0 {
            break;
        }
        sum.add(buffer.get(..read).unwrap_or_default());
    }
    Ok(sum.finish())
}
