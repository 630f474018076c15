//! Where the admin API of a running weir is, for the commands that ask it.

use std::path::PathBuf;

use clap::Args;

use crate::admin::Guard;
use crate::top::client::Admin;

#[derive(Args, Clone, Debug)]
pub(super) struct AdminArgs {
    /// The admin address: http://HOST:PORT or unix:/PATH
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9070")]
    admin: String,

    /// The file with the token of the admin API
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl AdminArgs {
    /// The way there.
    ///
    /// # Errors
    /// What is allowed, or what is wrong with the file.
    pub(super) fn client(&self) -> Result<Admin, String> {
        let token = match &self.token_file {
            None => None,
            Some(path) => {
                let refused = |why: String| format!("--token-file: {} {why}", path.display());
                let text = std::fs::read_to_string(path)
                    .map_err(|error| refused(format!("cannot be read: {error}")))?;
                Some(Guard::token_of(&text).map_err(refused)?)
            }
        };
        Admin::new(&self.admin, token).map_err(|why| format!("--admin {:?}: {why}", self.admin))
    }
}
