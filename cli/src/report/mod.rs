//! `chestnut report`: what a program may call, as a page for people who decide; and what filters take away, as a table
//! about many programs.
//!
//! Input: programs, or policies of programs. Output: HTML in a file or on standard output; a table.

mod headline;
mod html;
mod page;
mod picture;
mod tree;

use std::process::ExitCode;

use chestnut_rewriter::FilterOptions;

use crate::arguments::Report;
use crate::failure::Failure;
use crate::style::Style;
use crate::subject::Subject;
use crate::{program, vulnerabilities};

/// Does what the arguments say.
pub(crate) fn run(command: &Report, style: Style) -> Result<(String, ExitCode), Failure> {
    let known = vulnerabilities::read(&command.vulnerabilities, &command.analysis.limits())?;
    if command.table {
        return headline::run(command, &known, style);
    }
    let [file] = command.files.as_slice() else { return Err(Failure::ManyPrograms) };
    program::check_place(command.output.as_ref(), file)?;
    let subject = Subject::of(file, &command.analysis)?;
    let filter = match subject.filter() {
        Some(filter) => filter.clone(),
        None => {
            let options = FilterOptions { failing: subject.failing.clone(), ..FilterOptions::default() };
            let refused = |source| Failure::Refused { path: file.clone(), source };
            chestnut_rewriter::compile(&subject.policy, &options).map_err(refused)?
        }
    };
    let html = page::Page { subject: &subject, filter: &filter, vulnerabilities: &known }.html();
    let Some(path) = command.output.as_ref().filter(|path| !program::is_stream(path)) else {
        return Ok((html, ExitCode::SUCCESS));
    };
    program::write(path, html)?;
    Ok((String::new(), ExitCode::SUCCESS))
}
