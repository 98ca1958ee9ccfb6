//! Our own program in memory.

use std::ffi::{c_int, c_void};

/// Unmaps the code and the constants that starting needed: of what serves on, a page comes back at the next touch, from the kernel's cache
/// of the file. Most of an idle init's memory is otherwise the start it has behind it.
pub fn forget_pages() {
    // SAFETY: the callback takes what the loader passes, and nothing else.
    unsafe { libc::dl_iterate_phdr(Some(forget), std::ptr::null_mut()) };
}

/// Called for the program itself first: its libraries, if it has any, are others' too.
unsafe extern "C" fn forget(info: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    let page = super::page_size() as usize;
    // SAFETY: the loader's own table of what it mapped, of the length that it says.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    // What is never written to is in memory as it is in the file.
    for segment in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        let begin = base + segment.p_vaddr as usize;
        let end = (begin + segment.p_memsz as usize).next_multiple_of(page);
        let begin = begin / page * page;
        // SAFETY: whole pages of one segment, mapped privately from the file and unchanged; where it is refused, they stay.
        unsafe { libc::madvise(begin as *mut c_void, end - begin, libc::MADV_DONTNEED) };
    }
    1
}
