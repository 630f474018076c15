//! The ready file: written once a command serves, for whoever started it and waits.

use std::fs;
use std::io;
use std::path::Path;

/// Writes `content` as JSON so that a reader sees nothing or all of it. Errors name the file.
pub fn write(path: &Path, content: &serde_json::Value) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    fs::write(&partial, format!("{content}\n"))
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot write the ready file {}: {error}", path.display()),
            )
        })
}
