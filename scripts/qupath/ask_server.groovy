/*
 * Asks the label server (scripts/serve.py) for a tumour map of the open slide, or of the selected annotation, and shows
 * its outlines as annotations. QuPath 0.5 and later: Automate > Script editor > Run.
 *
 * With an annotation selected its bounding box is mapped, otherwise the whole slide. A slide that the server does not have in its
 * studies folder is sent as pixels; for that an annotation of at most LARGEST_SIDE pixels a side has to be selected.
 *
 * Request and answer are in QuPath's own coordinates, which begin at the corner of what was scanned; for slides that were opened
 * with --no-crop set FRAME to "level0".
 *
 * Every name of QuPath that it uses was looked up in the sources of QuPath 0.5, 0.6 and 0.7; it has not been run in QuPath.
 */
import java.awt.geom.AffineTransform
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpResponse
import java.time.Duration
import javax.imageio.ImageIO
import qupath.lib.io.PathIO
import qupath.lib.objects.PathObjectTools
import qupath.lib.regions.RegionRequest

import static qupath.lib.scripting.QP.*

// ---- Settings
def SERVER = "http://127.0.0.1:8000"
def MODEL = "camel"
def SLIDE = null            // its id, such as "case1~slide", where another slide of the server has this name; null: its own name
def REPLACE = true          // remove what an earlier run with this model has left
int LARGEST_SIDE = 8192     // of pixels that are sent
def FRAME = "qupath"        // where the slide's coordinates begin
// ----

def image = getCurrentServer()
if (image == null) {
    println "Open a slide first."
    return
}
def client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build()
def encode = { text -> URLEncoder.encode(text.toString(), "UTF-8").replace("+", "%20") }
def ask = { HttpRequest.Builder request ->
    def reply = client.send(request.timeout(Duration.ofHours(2)).build(), HttpResponse.BodyHandlers.ofByteArray())
    if (reply.statusCode() != 200)
        throw new IOException("The server said " + reply.statusCode() + ": " + new String(reply.body(), "UTF-8"))
    return reply.body()
}

// The server knows a slide by its file's name without the ending.
def file = new File(image.getURIs().iterator().next().getPath()).getName()
def dot = file.lastIndexOf(".")
def slide = dot > 0 ? file.substring(0, dot) : file
// <slide>.ome.tif is called <slide> by the server.
if (slide.toLowerCase().endsWith(".ome"))
    slide = slide.substring(0, slide.length() - 4)
if (SLIDE != null)
    slide = SLIDE

def selected = getSelectedObject()
def roi = selected != null && selected.hasROI() && selected.getROI().isArea() ? selected.getROI() : null
int x = roi == null ? 0 : Math.max(0, (int) Math.floor(roi.getBoundsX()))
int y = roi == null ? 0 : Math.max(0, (int) Math.floor(roi.getBoundsY()))
int width = roi == null ? 0 : Math.min(image.getWidth() - x, (int) Math.ceil(roi.getBoundsWidth()))
int height = roi == null ? 0 : Math.min(image.getHeight() - y, (int) Math.ceil(roi.getBoundsHeight()))

def known = client.send(HttpRequest.newBuilder(URI.create(SERVER + "/datastore/image/info?image=" + encode(slide)))
        .timeout(Duration.ofSeconds(30)).build(), HttpResponse.BodyHandlers.ofString())
def isThere = known.statusCode() == 200
// Several slides of this name, or a slide that cannot be read: 404 alone means that it is not there.
if (!isThere && known.statusCode() != 404)
    throw new IOException("The server said " + known.statusCode() + ": " + known.body())

byte[] answer
double shiftX = 0, shiftY = 0
if (isThere) {
    def body = '{"annotation_frame":"' + FRAME + '","location":[' + x + "," + y + '],"size":[' + width + "," + height + "]}"
    def uri = URI.create(SERVER + "/infer/wsi/" + encode(MODEL) + "?output=geojson&image=" + encode(slide))
    println "Asking for " + slide + (roi == null ? "" : " at " + [x, y, width, height]) + " ..."
    answer = ask(HttpRequest.newBuilder(uri).header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body)))
} else {
    if (roi == null || Math.max(width, height) > LARGEST_SIDE) {
        println "The server has no slide '" + slide + "': select an annotation of at most " + LARGEST_SIDE + " pixels a side."
        return
    }
    def pixels = new ByteArrayOutputStream()
    ImageIO.write(image.readRegion(RegionRequest.createInstance(image.getPath(), 1.0, x, y, width, height)), "PNG", pixels)
    def calibration = image.getPixelCalibration()
    def mpp = calibration.hasPixelSizeMicrons() ? ',"params":{"mpp":' + calibration.getAveragedPixelSizeMicrons() + "}" : ""
    def boundary = "QuPath" + UUID.randomUUID().toString()
    def whole = new ByteArrayOutputStream()
    whole.write(("--" + boundary + "\r\nContent-Disposition: form-data; name=\"wsi\"\r\n\r\n"
            + '{"location":[0,0],"size":[0,0]' + mpp + "}\r\n").getBytes("UTF-8"))
    whole.write(("--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"patch.png\"\r\n"
            + "Content-Type: image/png\r\n\r\n").getBytes("UTF-8"))
    whole.write(pixels.toByteArray())
    whole.write(("\r\n--" + boundary + "--\r\n").getBytes("UTF-8"))
    def uri = URI.create(SERVER + "/infer/wsi_v2/" + encode(MODEL) + "?output=geojson")
    println "Sending " + width + " x " + height + " pixels ..."
    answer = ask(HttpRequest.newBuilder(uri).header("Content-Type", "multipart/form-data; boundary=" + boundary)
            .POST(HttpRequest.BodyPublishers.ofByteArray(whole.toByteArray())))
    shiftX = x
    shiftY = y
}

def found = PathIO.readObjectsFromGeoJSON(new ByteArrayInputStream(answer))
if (shiftX != 0 || shiftY != 0) {
    def shift = AffineTransform.getTranslateInstance(shiftX, shiftY)
    found = found.collect { PathObjectTools.transformObject(it, shift, true) }
}
def name = "map by " + MODEL
if (REPLACE) {
    def old = getAnnotationObjects().findAll {
        it.getName() == name && (roi == null || roi.contains(it.getROI().getCentroidX(), it.getROI().getCentroidY()))
    }
    removeObjects(old, true)
}
found.each { it.setName(name) }
addObjects(found)
fireHierarchyUpdate()
println found.size() + " outlines from " + MODEL
