# DISTRO_FEATURES tpm-greengrass: the folder firstboot/ on the card's FAT partition, with the
# operator's README.txt and an example of the settings. Every image inherits it (conf/layer.conf).

IMAGE_BOOT_FILES:append = " firstboot/*;firstboot/"
do_image_wic[depends] += "firstboot-card:do_deploy"

# In fstab, meta-raspberrypi's layout names the SD card's device: an image that has booted from USB or NVMe
# does not find /boot there, and ends in systemd's emergency shell. An image's own layout stays.
# nooelint: oelint.task.noanonpython - it uses the final values of machine and image
python () {
    if d.getVar('WKS_FILE') == 'sdimage-raspberrypi.wks':
        d.setVar('WKS_FILE', 'sdimage-firstboot.wks')
}
