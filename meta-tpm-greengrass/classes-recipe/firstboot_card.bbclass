# DISTRO_FEATURES tpm-greengrass: the folder firstboot/ on the card's FAT partition, with the
# operator's README.txt and an example of the settings. Every image inherits it (conf/layer.conf).

IMAGE_BOOT_FILES:append = " firstboot/*;firstboot/"
do_image_wic[depends] += "firstboot-card:do_deploy"
