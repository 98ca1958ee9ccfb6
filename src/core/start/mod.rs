//! What the start needs: templates, users, addresses, the words of a command.

pub mod identity;
pub mod script;
pub mod template;
pub mod url;
pub mod words;
