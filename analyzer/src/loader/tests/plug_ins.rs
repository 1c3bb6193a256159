//! Plug-ins whose names come from templates, configuration files and the folders of interpreters.

use tempfile::TempDir;

use super::*;

/// A root with empty files at `paths`, and texts in those that have one.
fn system(files: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().unwrap();
    for (path, text) in files {
        let path = root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn found(root: &TempDir, texts: &[&str]) -> Vec<String> {
    let options = LoadOptions { root: root.path().to_path_buf(), ..LoadOptions::default() };
    compile(root.path(), "bin/program", "int main(void) { return 0; }", &["-static", "-nostartfiles", "-Wl,-emain"]);
    let set = load_closure(&root.path().join("bin/program"), &options).unwrap();
    set.plug_ins(&Seen::default(), &hints(texts.iter().copied())).into_iter().collect()
}

#[test]
fn templates_mean_the_files_that_fit() {
    let root = system(&[
        ("/usr/lib/lua/5.4/socket.so", ""),
        ("/usr/lib/lua/5.4/readme.txt", ""),
        ("/opt/app/plug-a.so", ""),
        ("/opt/app/other.so", ""),
        ("/usr/lib/libshared.so", ""),
    ]);
    let cpath = "/usr/local/lib/lua/5.4/?.so;/usr/lib/lua/5.4/?.so;./?.so";
    assert_eq!(found(&root, &[cpath]), ["/usr/lib/lua/5.4/socket.so"]);
    assert_eq!(found(&root, &["/opt/app/plug-%s.so"]), ["/opt/app/plug-a.so"]);
    // Everything in a folder that all programs share would say nothing about this one.
    assert_eq!(found(&root, &["/usr/lib/lib%s.so"]), [""; 0]);
}

#[test]
fn configuration_files_name_plug_ins() {
    let root = system(&[
        ("/etc/server/server.conf", "# load_module no.so;\ninclude /etc/server/enabled/*.conf;\n"),
        ("/etc/server/enabled/10.conf", "load_module modules/image.so;\n"),
        ("/etc/server/enabled/10.bak", "load_module modules/no.so;\n"),
        ("/usr/share/server/modules/image.so", ""),
        ("/usr/share/server/modules/no.so", ""),
    ]);
    let texts = ["/etc/server/server.conf", "/usr/share/server/"];
    assert_eq!(found(&root, &texts), ["/usr/share/server/modules/image.so"]);
    // The folder in one text, the file's name in another.
    let texts = ["/etc/server", "server.conf", "/usr/share/server/"];
    assert_eq!(found(&root, &texts), ["/usr/share/server/modules/image.so"]);
}

#[test]
fn stacks_of_pam_name_their_modules() {
    let root = system(&[
        ("/etc/pam.d/login", "auth [success=1 default=ignore] pam_unix.so nullok\n@include common\n"),
        ("/etc/pam.d/common", "session required /opt/pam_own.so\n#session pam_no.so\n"),
        ("/lib/security/pam_unix.so", ""),
        ("/lib/security/pam_no.so", ""),
        ("/opt/pam_own.so", ""),
    ]);
    let texts = ["/etc/pam.d/", "/lib/security/%s"];
    assert_eq!(found(&root, &texts), ["/lib/security/pam_unix.so", "/opt/pam_own.so", "pam_unix.so"]);
}

#[test]
fn extension_modules_of_interpreters_are_found_by_their_conventions() {
    let root = system(&[
        ("/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", ""),
        ("/usr/lib/python3/dist-packages/yaml/_yaml.cpython-311-x86_64-linux-gnu.so", ""),
        ("/usr/lib/python3/dist-packages/yaml/_yaml.cpython-312-x86_64-linux-gnu.so", ""),
        ("/usr/lib/perl/5.36/auto/List/Util/Util.so", ""),
        ("/usr/lib/perl/5.36/List/Util.pm", ""),
    ]);
    let python = found(&root, &[".cpython-311-x86_64-linux-gnu.so"]);
    assert_eq!(
        python,
        [
            "/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so",
            "/usr/lib/python3/dist-packages/yaml/_yaml.cpython-311-x86_64-linux-gnu.so"
        ]
    );
    assert_eq!(found(&root, &["/usr/lib/perl/5.36"]), ["/usr/lib/perl/5.36/auto/List/Util/Util.so"]);
}
