"""config.txt loads the overlay on every board, whatever the image adds to it, and nothing else that meta-raspberrypi's
rpi-config offers uses the TPM's chip select."""
import subprocess

import pytest

import layer

RECIPE = "dynamic-layers/raspberrypi/recipes-bsp/bootfiles/rpi-config_git.bbappend"
ON = {"MACHINE_FEATURES": "tpm-slb9670"}
BOARDS = ["pi3", "pi3+", "pi4", "cm4", "pi5"]


@pytest.fixture
def recipe(parse):
    """recipe(VARIABLE=value, ...) returns rpi-config with the feature."""
    return lambda **variables: parse(RECIPE, **ON, **variables)


def lines_for(board, text):
    """The lines of config.txt that apply to a board, by the filters in its documentation."""
    counts = True
    for line in text.splitlines():
        if line.startswith("["):
            counts = line.strip("[]") in ("all", board)
        elif counts:
            yield line


def written(d):
    """What rpi-config_git.bb's do_deploy appends: printf "${RPI_EXTRA_CONFIG}\\n"."""
    command = ["printf", d.getVar("RPI_EXTRA_CONFIG") + "\\n"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("left_open", [
    "gpio=17=op",
    "\\n[pi4]\\narm_boost=1",
    "\\n[board-type=0x17]\\ndtparam=pciex1\\n",
    "\\n[0x12345678]\\nhdmi_group=2\\n",
    "\\n[gpio4=1]\\ndtoverlay=w1-gpio,gpiopin=5",
    "\\n[pi5]\\n[none]\\ndtoverlay=old",
])
def test_the_overlay_is_loaded_on_every_board(recipe, left_open, board):
    text = written(recipe(RPI_EXTRA_CONFIG=left_open))
    assert "dtoverlay=tpm-slb9670" in lines_for(board, text)


def test_what_the_image_adds_stays_as_it_is(parse, recipe):
    mine = "\\n[pi4]\\narm_boost=1\\n"
    assert parse(RECIPE, RPI_EXTRA_CONFIG=mine).getVar("RPI_EXTRA_CONFIG") == mine
    assert recipe(RPI_EXTRA_CONFIG=mine).getVar("RPI_EXTRA_CONFIG").startswith(mine)


def test_the_overlays_scope_ends(recipe):
    """Lines that do_deploy writes after RPI_EXTRA_CONFIG (such as dtparam=audio=on) set no parameter of ours."""
    overlays = [line for line in written(recipe()).splitlines() if line.startswith("dtoverlay=")]
    assert overlays == ["dtoverlay=tpm-slb9670", "dtoverlay="]


def test_the_overlay_and_its_parameters_can_be_chosen(recipe):
    slow = "tpm-slb9670-ce0,speed=10000000"
    assert f"dtoverlay={slow}" in written(recipe(TPM_SLB9670_OVERLAY=slow)).splitlines()


def clashes(d):
    return d.expand("${@' / '.join(tpm_slb9670_clashes(d))}")


CE0 = "tpm-slb9670-ce0,speed=10000000"


@pytest.mark.parametrize("variables, says", [
    ({"ENABLE_DUAL_CAN": "1", "TPM_SLB9670_PINS": "4"}, "ENABLE_DUAL_CAN puts a device at SPI0's CE1"),
    ({"ENABLE_DUAL_CAN_SEED_FD_HAT_V2": "1"}, "ENABLE_DUAL_CAN_SEED_FD_HAT_V2 puts a device at SPI0's CE1"),
    ({"PITFT35r": "1", "TPM_SLB9670_PINS": ""}, "PITFT35r puts a device at SPI0's CE1"),
    ({"PITFT28r": "1", "TPM_SLB9670_PINS": ""}, "PITFT28r puts a device at SPI0's CE1"),
    ({"PITFT22": "1", "TPM_SLB9670_OVERLAY": CE0}, "PITFT22 puts a device at SPI0's CE0"),
    ({"ENABLE_CAN": "1", "TPM_SLB9670_OVERLAY": CE0, "TPM_SLB9670_PINS": ""}, "ENABLE_CAN puts a device at SPI0's CE0"),
    ({"ENABLE_AT86RF": "1"}, "ENABLE_AT86RF takes GPIO24"),
    ({"ENABLE_CAN": "1"}, "ENABLE_CAN takes GPIO25"),
    ({"ENABLE_W1": "1"}, "ENABLE_W1 takes GPIO4, which TPM_SLB9670_PINS keeps"),
    ({"ENABLE_IR": "1", "GPIO_IR_TX": "24"}, "ENABLE_IR takes GPIO24"),
    ({"ENABLE_GPIO_SHUTDOWN": "1", "GPIO_SHUTDOWN_PIN": "7"}, "ENABLE_GPIO_SHUTDOWN takes GPIO7, a pin of SPI0"),
    ({"ENABLE_GPIO_SHUTDOWN": "1", "TPM_SLB9670_PINS": "3"}, "ENABLE_GPIO_SHUTDOWN takes GPIO3"),
])
def test_what_uses_the_tpms_pins_is_named(recipe, variables, says):
    assert says in clashes(recipe(**variables))


@pytest.mark.parametrize("variables", [
    {},
    {"ENABLE_I2C": "1", "ENABLE_UART": "1", "ENABLE_SPI_BUS": "1", "WM8960": "1", "ENABLE_IR": "1"},
    {"ENABLE_W1": "0", "ENABLE_CAN": ""},
    # an Iridium at CE1 beside a single CAN controller at CE0
    {"ENABLE_CAN": "1", "TPM_SLB9670_PINS": "4"},
    {"ENABLE_CAN": "1", "CAN0_INTERRUPT_PIN": "22"},
    {"ENABLE_GPIO_SHUTDOWN": "1", "GPIO_SHUTDOWN_PIN": "26"},
    # a LetsTrust beside one-wire
    {"ENABLE_W1": "1", "TPM_SLB9670_PINS": "24 25"},
    # the image's own overlay, with the TPM on another bus
    {"ENABLE_DUAL_CAN": "1", "TPM_SLB9670_OVERLAY": "tpm-on-spi3", "TPM_SLB9670_PINS": ""},
])
def test_what_is_elsewhere_is_left_alone(recipe, variables):
    assert clashes(recipe(**variables)) == ""


def test_a_conflict_fails_the_build(recipe):
    """do_deploy runs the check before anything else; without a conflict it prints nothing."""
    for variables, ends in [({}, False), ({"ENABLE_W1": "1"}, True)]:
        d = recipe(**variables)
        assert d.getVarFlag("do_deploy", "prefuncs").split() == ["tpm_slb9670_check_pins"]
        check = layer.function(d, "tpm_slb9670_check_pins")
        if ends:
            with pytest.raises(layer.bb.BBHandledException):
                check(d)
        else:
            check(d)
