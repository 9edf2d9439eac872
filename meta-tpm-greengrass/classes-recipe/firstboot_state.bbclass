# DISTRO_FEATURES tpm-greengrass: an image in which firstboot's directories do not outlive a boot is not built: it
# would make another key and request each time. Every image inherits it (conf/layer.conf).

IMAGE_QA_COMMANDS += "firstboot_state_lasts"
# bitbake does not look into functions that only this variable names: without this, what they read (APPEND, say) could
# change and the check not run again.
do_image_qa[vardeps] += "firstboot_state_lasts"

# docs/reference.md, "What must last". A directory that the image does not have is not looked at.
FIRSTBOOT_STATE = "${localstatedir}/lib/tpm2_pkcs11 ${localstatedir}/lib/greengrass ${sysconfdir}/greengrass /greengrass"

def firstboot_mounts(rootfs, arguments):
    """What fstab, systemd's mount units and the kernel's arguments mount: {directory: (what, type, options)}."""
    import glob
    mounts = {'/': ('', '', [])}
    # systemd-volatile-root.service(8), systemd-fstab-generator(8)
    for argument in arguments.split():
        name, _, value = argument.partition('=')
        if name == 'systemd.volatile' and value != 'no':
            mounts['/var' if value == 'state' else '/'] = ('', 'tmpfs', [])
    fstab = os.path.join(rootfs, 'etc/fstab')
    lines = open(fstab).read().splitlines() if os.path.exists(fstab) else []
    for fields in (line.split() for line in lines if not line.startswith('#')):
        if len(fields) > 3 and not (fields[1] == '/' and mounts['/'][1]):
            mounts[fields[1]] = (fields[0], fields[2], fields[3].split(','))
    for folder in ('usr/lib/systemd/system', 'lib/systemd/system', 'etc/systemd/system'):
        for path in sorted(glob.glob(os.path.join(rootfs, folder, '*.mount'))):
            pairs = [line.partition('=') for line in open(path) if '=' in line] if os.path.isfile(path) else []
            unit = {key.strip(): value.strip() for key, _, value in pairs}
            if 'Where' in unit:
                mounts[unit['Where']] = (unit.get('What', ''), unit.get('Type', ''), unit.get('Options', '').split(','))
    return mounts

def firstboot_volatile_binds(rootfs):
    """What volatile-binds puts over directories that cannot be written: {directory: what}."""
    import glob
    binds = {}
    for path in glob.glob(os.path.join(rootfs, 'usr/lib/systemd/system/*.service')):
        for words in (line.split() for line in open(path) if 'mount-copybind' in line and line.startswith('ExecStart=')):
            binds[words[2]] = words[1]
    return binds

def firstboot_resolve(rootfs, path):
    """`path` on the device without symbolic links, as far as the image has them."""
    done, parts = '/', path.strip('/').split('/')
    for _ in range(64):
        if not parts:
            break
        step = os.path.normpath(os.path.join(done, parts.pop(0)))
        here = rootfs + step
        if os.path.islink(here):
            target = os.path.join(done, os.readlink(here))
            done, parts = '/', os.path.normpath(target).strip('/').split('/') + parts
        else:
            done = step
    return done

def firstboot_lost(rootfs, path, mounts, binds):
    """Why what is written to `path` would not outlive a boot of this image, or None."""
    def covers(directory):
        return path == directory or path.startswith(directory.rstrip('/') + '/')

    def goes_to(source, other_mounts, other_binds):
        source = os.path.normpath(source)
        why = firstboot_lost(rootfs, source, {'/': ('', '', []), **other_mounts}, other_binds)
        return why and f"what is written there goes to {source}, and {why}"

    def without(table, directory):
        return {key: value for key, value in table.items() if key != directory}

    path = firstboot_resolve(rootfs, path)
    where = max(filter(covers, mounts), key=len)
    what, kind, options = mounts[where]
    over = max(filter(covers, binds), key=len, default=None)
    if kind in ('tmpfs', 'ramfs'):
        return f"{where} is in memory ({kind})"
    if 'ro' in options and over:
        return goes_to(os.path.join(binds[over], os.path.relpath(path, over)), mounts, without(binds, over))
    if 'ro' in options:
        return f"{where} is read-only"
    if 'bind' in options or 'rbind' in options:
        return goes_to(os.path.join(what, os.path.relpath(path, where)), without(mounts, where), binds)
    for upper in (option.partition('=')[2] for option in options if option.startswith('upperdir=')):
        return goes_to(upper, without(mounts, where), binds)
    return None

python firstboot_state_lasts() {
    rootfs = d.getVar('IMAGE_ROOTFS')
    if not os.path.exists(rootfs + d.getVar('bindir') + '/firstboot'):
        return
    mounts = firstboot_mounts(rootfs, d.getVar('APPEND') or '')
    if bb.utils.contains('IMAGE_FEATURES', 'read-only-rootfs', True, False, d):
        mounts['/'][2].append('ro')
    binds = firstboot_volatile_binds(rootfs)
    identity, *others = d.getVar('FIRSTBOOT_STATE').split()
    state = [identity] + [path for path in others if os.path.isdir(rootfs + path)]
    lost = [(path, firstboot_lost(rootfs, path, mounts, binds)) for path in state]
    # overlayfs-etc.bbclass: its init puts this onto a partition before systemd starts.
    sysconfdir = d.getVar('sysconfdir') if bb.utils.contains('IMAGE_FEATURES', 'overlayfs-etc', True, False, d) else None
    said = ['%s: %s' % (path, why) for path, why in lost if why and os.path.dirname(path) != sysconfdir]
    if said:
        bb.fatal('%s. What firstboot makes there would be gone at the next boot, or could not be made. '
                 "meta-tpm-greengrass's docs/reference.md says what must last, and what to do where this "
                 'cannot see what mounts it' % '; '.join(said))
}
